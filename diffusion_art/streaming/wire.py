"""Wire protocol v2: messages to bytes and back. Opens nothing.

Control messages are JSON objects in text frames of the WebSocket, data travels in binary ones:

    client                                                  server
    {"type": "hello", "version": 2}                      ->
                                                        <-  {"type": "info", "name": "wikiart", "digest": ...}
    {"type": "read", "id": 7, "split": "train", "seed": 0,
     "epoch": 3, "start": 128, "stop": 192}              ->
                                                        <-  data frames of request 7: places 128, ...
                                                            or {"type": "error", "id": 7, "code": ...}

`seed: null` asks for the order of the index. The server keeps nothing between requests. A client may have
several unanswered ones (that is its credit); they are answered in order. A long answer comes as several
frames with rising positions, the last of them flagged.

A data frame, little-endian:

    header, 32 bytes   magic "dart", version u16, flags u16, request u32, count u32, position u64,
                       body bytes u32, CRC-32 u32 (of header and body, with this field zero)
    keys               count x u64
    image lengths      count x u32
    caption lengths    count x u32
    unreadable         count x u8 (1: the server could not read this sample, image and caption are empty)
    captions           UTF-8, one after the other
    images             as stored, one after the other
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import numpy as np

VERSION = 2
SUBPROTOCOL = "diffusion-art.v2"
PATH = "/ws"

# What a receiver takes at most: a request is a line of JSON, a frame some hundred pictures.
MAX_MESSAGE_BYTES = 64 * 2**10
MAX_FRAME_BYTES = 64 * 2**20
MAX_SAMPLE_BYTES = MAX_FRAME_BYTES - 2**10  # image and caption, in a frame of their own
# What a sender aims at: one frame is full at either of these.
FRAME_BYTES = 2**20
FRAME_SAMPLES = 256
# The longest range of one request.
MAX_COUNT = 4096

_HEADER = struct.Struct("<4sHHIIQII")
_MAGIC = b"dart"
_LAST = 1  # flag: the final frame of its request
_ROW_BYTES = 8 + 4 + 4 + 1
_CRC_OFFSET = _HEADER.size - 4

Buffer: TypeAlias = bytes | bytearray | memoryview


class WireError(Exception):
    """Bytes that are not what the protocol says: cut, corrupted, of another version or too large."""


@dataclass(frozen=True)
class Hello:
    """The client's first message."""

    version: int = VERSION


@dataclass(frozen=True)
class StreamInfo:
    """Which data set a server holds. `splits` are sample counts, `digest` names the samples in order."""

    name: str
    splits: Mapping[str, int]
    digest: str
    image_size_px: int
    caption_template: str | None
    max_count: int = MAX_COUNT
    version: int = VERSION


@dataclass(frozen=True)
class Read:
    """Asks for places [start, stop) of an epoch's order of `split`; `seed` None is the order of the index."""

    id: int
    split: str
    seed: int | None
    epoch: int
    start: int
    stop: int


@dataclass(frozen=True)
class Error:
    """The server's refusal of request `id` (None: of the connection). `code` is for programs."""

    id: int | None
    code: str
    message: str


Message: TypeAlias = Hello | StreamInfo | Read | Error
_MESSAGES: dict[str, type[Message]] = {"hello": Hello, "info": StreamInfo, "read": Read, "error": Error}
_KINDS = {kind: name for name, kind in _MESSAGES.items()}
_INTEGERS = {
    "version": 16,
    "id": 32,
    "epoch": 63,
    "start": 63,
    "stop": 63,
    "max_count": 32,
    "image_size_px": 32,
}


def pack_message(message: Message) -> str:
    """A control message as JSON text."""
    return json.dumps({"type": _KINDS[type(message)], **asdict(message)}, ensure_ascii=False)


def unpack_message(text: str) -> Message:
    """The control message in `text`; WireError when it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a control message is not JSON: {error}") from None
    kind = _MESSAGES.get(str(content.pop("type", None))) if isinstance(content, dict) else None
    if kind is None:
        raise WireError(f"a control message has no type of {sorted(_MESSAGES)}: {text[:200]!r}")
    names = {field.name for field in fields(kind)}
    if content.keys() != names:
        wrong = sorted(names ^ content.keys())
        raise WireError(f"a {_KINDS[kind]} message has keys missing or unknown: {', '.join(wrong)[:200]}")
    for name, value in content.items():
        if not _fits(kind, name, value):
            raise WireError(f"a {_KINDS[kind]} message has {name}={str(value)[:100]!r}")
    return kind(**content)


@dataclass(frozen=True)
class Frame:
    """A decoded data frame: samples at places [position, position + len(keys)) of the order asked for.

    `images` and `captions` (UTF-8) are views into the frame's bytes, empty where `unreadable` is set.
    """

    request: int
    position: int
    last: bool
    keys: np.ndarray  # uint64
    unreadable: np.ndarray  # bool
    captions: list[memoryview]
    images: list[memoryview]


def encode_frame(
    keys: np.ndarray,
    captions: Sequence[Buffer | None],
    images: Sequence[Buffer | None],
    *,
    request: int,
    position: int,
    last: bool,
) -> bytearray:
    """The data frame of these samples (keys uint64; None for what could not be read), in one copy."""
    image_lengths = [0 if image is None else len(image) for image in images]
    caption_lengths = [0 if caption is None else len(caption) for caption in captions]
    body_bytes = _ROW_BYTES * len(keys) + sum(caption_lengths) + sum(image_lengths)
    if _HEADER.size + body_bytes > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {_HEADER.size + body_bytes} bytes is over the limit of {MAX_FRAME_BYTES}")
    flags = _LAST if last else 0
    frame = bytearray().join(
        [
            _HEADER.pack(_MAGIC, VERSION, flags, request, len(keys), position, body_bytes, 0),
            np.ascontiguousarray(keys, dtype="<u8").data,
            np.array(image_lengths, dtype="<u4").data,
            np.array(caption_lengths, dtype="<u4").data,
            bytes([image is None for image in images]),
            *(caption for caption in captions if caption is not None),
            *(image for image in images if image is not None),
        ]
    )
    struct.pack_into("<I", frame, _CRC_OFFSET, zlib.crc32(frame))
    return frame


def decode_frame(data: Buffer) -> Frame:
    """The frame in `data`, kept alive and not copied; WireError for anything but a whole frame."""
    view = memoryview(data).toreadonly()
    if len(view) < _HEADER.size:
        raise WireError(f"a frame of {len(view)} bytes is shorter than its header of {_HEADER.size}")
    if len(view) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(view)} bytes is over the limit of {MAX_FRAME_BYTES}")
    magic, version, flags, request, count, position, body_bytes, checksum = _HEADER.unpack_from(view)
    if magic != _MAGIC or version != VERSION:
        raise WireError(f"a frame begins with {magic!r} version {version}, not {_MAGIC!r} version {VERSION}")
    if len(view) != _HEADER.size + body_bytes:
        raise WireError(f"a frame of {len(view)} bytes says that it has {_HEADER.size + body_bytes}")
    blank = zlib.crc32(b"\0\0\0\0", zlib.crc32(view[:_CRC_OFFSET]))
    if zlib.crc32(view[_HEADER.size :], blank) != checksum:
        raise WireError(f"a frame of request {request} at position {position} has a wrong checksum")
    if flags & ~_LAST or count * _ROW_BYTES > body_bytes:
        raise WireError(f"a frame has flags {flags:#x} and {count} samples in a body of {body_bytes} bytes")
    keys = np.frombuffer(view, "<u8", count, _HEADER.size)
    image_lengths = np.frombuffer(view, "<u4", count, _HEADER.size + 8 * count)
    caption_lengths = np.frombuffer(view, "<u4", count, _HEADER.size + 12 * count)
    unreadable = np.frombuffer(view, np.uint8, count, _HEADER.size + 16 * count) != 0
    captions, end = _split(view, _HEADER.size + _ROW_BYTES * count, caption_lengths)
    images, end = _split(view, end, image_lengths)
    if end != len(view):
        raise WireError(f"a frame of {len(view)} bytes has samples up to byte {end}")
    return Frame(request, position, bool(flags & _LAST), keys, unreadable, captions, images)


def _split(view: memoryview, start: int, lengths: np.ndarray) -> tuple[list[memoryview], int]:
    """Consecutive slices of `view` from `start` on, and where the last one ends."""
    ends = (start + np.cumsum(lengths, dtype=np.int64)).tolist()
    return [view[a:b] for a, b in zip([start, *ends], ends)], ends[-1] if ends else start


def _fits(kind: type[Message], name: str, value: Any) -> bool:
    """Whether `value` is what a message of this kind may carry under `name`."""
    if value is None:
        return name in ("seed", "caption_template") or (name == "id" and kind is Error)
    if name == "seed":
        return type(value) is int and abs(value) < 2**63
    if name in _INTEGERS:
        return type(value) is int and 0 <= value < 2 ** _INTEGERS[name]
    if name == "splits":
        return isinstance(value, dict) and all(type(n) is int and 0 <= n < 2**62 for n in value.values())
    return isinstance(value, str)
