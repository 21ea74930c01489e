"""Wire protocol v2: messages and samples to bytes and back. Opens nothing.

Control messages are JSON objects in text frames of the WebSocket, data travels in binary ones:

    client                                                  server
    {"type": "hello", "version": 2}                      ->
                                                        <-  {"type": "info", "name": "wikiart", "digest": ...}
    {"type": "read", "id": 7, "split": "train", "seed": 0,
     "epoch": 3, "start": 128, "stop": 192,
     "codec": "jpeg", "checksum": true}                  ->
                                                        <-  data frames of request 7: places 128, ...
                                                            or {"type": "error", "id": 7, "code": ...}

`seed: null` asks for the order of the index. `codec` is one of those that info names: `jpeg`, the pictures as
they are stored, or `u8`, their pixels (RGB, height x width x 3 bytes); it and `checksum` may be left out. The server
keeps nothing between requests. A client may have several unanswered ones (that is its credit); they are answered
in order. A long answer comes as several frames with rising positions, the last of them flagged.

A data frame, little-endian:

    header, 32 bytes   magic "dart", version u16, flags u16 (1: last frame of its request, 2: no checksum),
                       request u32, count u32, position u64, body bytes u32,
                       CRC-32 u32 (of header and body, with this field zero; zero where there is no checksum)
    keys               count x u64
    image lengths      count x u32
    caption lengths    count x u32
    unreadable         count x u8 (1: the server could not read this sample, image and caption are empty)
    captions           UTF-8, one after the other
    images             in the codec asked for, one after the other
"""

import json
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np
from isal.isal_zlib import crc32  # ten times as fast as zlib's

from diffusion_art.shards.mixed_order import MOST_SAMPLES
from diffusion_art.sizes import size_named

VERSION = 2

# What a receiver takes at most: a frame is some hundred pictures.
MAX_FRAME_BYTES = 64 * 2**20
MAX_SAMPLE_BYTES = MAX_FRAME_BYTES - 2**10  # image and caption, in a frame of their own

_HEADER = struct.Struct("<4sHHIIQII")
_MAGIC = b"dart"
_LAST = 1  # flag: the final frame of its request
_UNCHECKED = 2  # flag: no checksum, as the client wished
_ROW_BYTES = 8 + 4 + 4 + 1
_CRC_OFFSET = _HEADER.size - 4

# What a sender aims at: one frame is full at either of these. Bytes are those of captions and images, so a whole frame
# of several samples has at most 2^20: that is what clients made with Python's `websockets` take by default.
FRAME_SAMPLES = 256
FRAME_BYTES = 2**20 - _HEADER.size - FRAME_SAMPLES * _ROW_BYTES

Buffer: TypeAlias = bytes | bytearray | memoryview

SUBPROTOCOL = "diffusion-art.v2"
PATH = "/ws"
MAX_MESSAGE_BYTES = 64 * 2**10  # what a server takes at most: a request is a line of JSON
MAX_COUNT = 4096  # the longest range of one request


class WireError(Exception):
    """Bytes that are not what the protocol says: cut, corrupted, of another version or too large."""


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


def frame_parts(
    keys: np.ndarray,
    captions: Sequence[Buffer | None],
    images: Sequence[Buffer | None],
    *,
    request: int,
    position: int,
    last: bool,
    checksum: bool = True,
) -> list[Buffer]:
    """The data frame of these samples (keys uint64; None for what could not be read) in parts, the images untouched."""
    unreadable = [image is None for image in images]
    images = [b"" if image is None else image for image in images]
    texts = [b"" if caption is None else caption for caption in captions]
    image_lengths, caption_lengths = [*map(len, images)], [*map(len, texts)]
    body_bytes = _ROW_BYTES * len(keys) + sum(caption_lengths) + sum(image_lengths)
    if _HEADER.size + body_bytes > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {_HEADER.size + body_bytes} bytes is over the limit of {MAX_FRAME_BYTES}")
    flags = (_LAST if last else 0) | (0 if checksum else _UNCHECKED)
    head = bytearray().join(
        [
            _HEADER.pack(_MAGIC, VERSION, flags, request, len(keys), position, body_bytes, 0),
            np.ascontiguousarray(keys, dtype="<u8").data,
            np.array(image_lengths, dtype="<u4").data,
            np.array(caption_lengths, dtype="<u4").data,
            bytes(unreadable),
            *texts,
        ]
    )
    if checksum:
        crc = crc32(head)
        for image in images:
            crc = crc32(image, crc)
        struct.pack_into("<I", head, _CRC_OFFSET, crc)
    return [head, *images]


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
    if checksum != (0 if flags & _UNCHECKED else _crc(view)):
        raise WireError(f"a frame of request {request} at position {position} has a wrong checksum")
    if flags & ~(_LAST | _UNCHECKED) or count * _ROW_BYTES > body_bytes:
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


def unreadable_in(frame: Buffer) -> int:
    """How many samples of a frame the server could not read; the first of its parts is enough to tell."""
    (count,) = struct.unpack_from("<I", frame, 12)
    return int(np.count_nonzero(np.frombuffer(frame, np.uint8, count, _HEADER.size + 16 * count)))


def _crc(view: memoryview) -> int:
    """CRC-32 of a frame, its own field taken for zero."""
    return crc32(view[_HEADER.size :], crc32(b"\0\0\0\0", crc32(view[:_CRC_OFFSET])))


def _split(view: memoryview, start: int, lengths: np.ndarray) -> tuple[list[memoryview], int]:
    """Consecutive slices of `view` from `start` on, and where the last one ends."""
    ends = (start + np.cumsum(lengths, dtype=np.int64)).tolist()
    return [view[a:b] for a, b in zip([start, *ends], ends)], ends[-1] if ends else start


@dataclass(frozen=True)
class Hello:
    """The client's first message."""

    version: int = VERSION


@dataclass(frozen=True)
class StreamInfo:
    """Which data set a server holds. `splits` are sample counts, `digest` names the samples in order.

    `codecs` are the forms in which it gives the pictures. `buckets` are the samples of each bucket of a split, where
    pictures keep their shape: `train/160x96` is read as a split. A data set of squares does not tell of any. In a
    mixture by weight `bucket_shares` says how often each comes.
    """

    name: str
    splits: Mapping[str, int]
    digest: str
    image_size_px: int
    caption_template: str | None
    max_count: int = MAX_COUNT
    version: int = VERSION
    codecs: tuple[str, ...] = ("jpeg",)
    buckets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    bucket_shares: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Read:
    """Asks for places [start, stop) of an epoch's order of `split`; `seed` None is the order of the index.

    `checksum` False spares both sides the CRC, where the network below is trusted.
    """

    id: int
    split: str
    seed: int | None
    epoch: int
    start: int
    stop: int
    codec: str = "jpeg"
    checksum: bool = True


@dataclass(frozen=True)
class Error:
    """The server's refusal of request `id` (None: of the connection). `code` is for programs."""

    id: int | None
    code: str
    message: str


Message: TypeAlias = Hello | StreamInfo | Read | Error
_MESSAGES: dict[str, type[Message]] = {"hello": Hello, "info": StreamInfo, "read": Read, "error": Error}
_KINDS = {kind: name for name, kind in _MESSAGES.items()}
_NAMES = {  # all, and those that may not be left out
    kind: (
        {entry.name for entry in fields(kind)},
        {entry.name for entry in fields(kind) if entry.default is MISSING and entry.default_factory is MISSING},
    )
    for kind in _KINDS
}
_LATER = ("buckets", "bucket_shares")  # which earlier clients do not know: left out where there are none
_INTEGERS = {"version": 16, "id": 32, "epoch": 63, "start": 63, "stop": 63, "max_count": 32, "image_size_px": 32}


def pack_message(message: Message) -> str:
    """A control message as JSON text."""
    content = {"type": _KINDS[type(message)], **vars(message)}
    for name in _LATER:
        if not content.get(name, True):
            del content[name]
    return json.dumps(content, ensure_ascii=False, default=dict)


def unpack_message(text: str) -> Message:
    """The control message in `text`; WireError when it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a control message is not JSON: {error}") from None
    kind = _MESSAGES.get(str(content.pop("type", None))) if isinstance(content, dict) else None
    if kind is None:
        raise WireError(f"a control message has no type of {sorted(_MESSAGES)}: {text[:200]!r}")
    names, needed = _NAMES[kind]
    if not needed <= content.keys() <= names:
        wrong = sorted((needed - content.keys()) | (content.keys() - names))
        raise WireError(f"a {_KINDS[kind]} message has keys missing or unknown: {', '.join(wrong)[:200]}")
    for name, value in content.items():
        if not _fits(kind, name, value):
            raise WireError(f"a {_KINDS[kind]} message has {name}={json.dumps(value)[:100]}, {_wanted(kind, name)}")
    for split, shares in content.get("bucket_shares", {}).items():
        if shares.keys() != content.get("buckets", {}).get(split, {}).keys():
            raise WireError(f"an info message has bucket_shares of other sizes than buckets: {str(shares)[:100]}")
    if "codecs" in content:
        content["codecs"] = tuple(content["codecs"])
    return kind(**content)


def _fits(kind: type[Message], name: str, value: Any) -> bool:
    """Whether `value` is what a message of this kind may carry under `name`."""
    if value is None:
        return name in ("seed", "caption_template") or (name == "id" and kind is Error)
    if name == "seed":
        return type(value) is int and abs(value) < 2**63
    if name == "checksum":
        return type(value) is bool
    if name == "codecs":
        return isinstance(value, list) and all(isinstance(codec, str) for codec in value)
    if name in _INTEGERS:
        return type(value) is int and 0 <= value < 2 ** _INTEGERS[name]
    if name == "splits":
        return _counts(value)
    if name in _LATER:
        return isinstance(value, dict) and all(_counts(counts) and _by_size(counts) for counts in value.values())
    return isinstance(value, str)


def _wanted(kind: type[Message], name: str) -> str:
    """What `_fits` takes there, for people who write a client."""
    if name == "seed":
        return "not null or a whole number between -2^63 and 2^63"
    if name == "checksum":
        return "not true or false"
    if name in _INTEGERS:
        return f"not a whole number from 0 to 2^{_INTEGERS[name]} - 1"
    return f"not what {'an' if kind in (StreamInfo, Error) else 'a'} {_KINDS[kind]} message has there"


def _counts(value: Any) -> bool:
    """Whether these are numbers of samples by name."""
    return isinstance(value, dict) and all(type(n) is int and 0 <= n < 2**62 for n in value.values())


def _by_size(counts: dict[str, int]) -> bool:
    """Whether these are of sizes, of which a training can take batches in turn."""
    with suppress(ValueError):
        for name in counts:
            size_named(name)
        return all(counts.values()) and sum(counts.values()) <= MOST_SAMPLES
    return False
