"""Wire protocol v2: messages to bytes and back. Opens nothing.

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
they are stored, or `u8`, their pixels (RGB, size x size x 3 bytes); it and `checksum` may be left out. The server
keeps nothing between requests. A client may have several unanswered ones (that is its credit); they are answered
in order. A long answer comes as several frames (frame.py) with rising positions, the last of them flagged.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeAlias

from diffusion_art.streaming.frame import (
    FRAME_BYTES,
    FRAME_SAMPLES,
    MAX_FRAME_BYTES,
    MAX_SAMPLE_BYTES,
    VERSION,
    Frame,
    WireError,
    decode_frame,
    frame_parts,
)

__all__ = [
    "FRAME_BYTES",
    "FRAME_SAMPLES",
    "MAX_COUNT",
    "MAX_FRAME_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_SAMPLE_BYTES",
    "PATH",
    "SUBPROTOCOL",
    "VERSION",
    "Error",
    "Frame",
    "Hello",
    "Message",
    "Read",
    "StreamInfo",
    "WireError",
    "decode_frame",
    "frame_parts",
    "pack_message",
    "unpack_message",
]

SUBPROTOCOL = "diffusion-art.v2"
PATH = "/ws"
MAX_MESSAGE_BYTES = 64 * 2**10  # what a server takes at most: a request is a line of JSON
MAX_COUNT = 4096  # the longest range of one request


@dataclass(frozen=True)
class Hello:
    """The client's first message."""

    version: int = VERSION


@dataclass(frozen=True)
class StreamInfo:
    """Which data set a server holds. `splits` are sample counts, `digest` names the samples in order.

    `codecs` are the forms in which it gives the pictures. `buckets` are the samples of each bucket of a split, where
    pictures keep their shape: `train/160x96` is read as a split. A data set of squares does not tell of any.
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
    content = {"type": _KINDS[type(message)], **vars(message)}
    if not content.get("buckets", True):  # earlier clients know no such key
        del content["buckets"]
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
            raise WireError(f"a {_KINDS[kind]} message has {name}={str(value)[:100]!r}")
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
    if name == "buckets":
        return isinstance(value, dict) and all(_counts(counts) for counts in value.values())
    return isinstance(value, str)


def _counts(value: Any) -> bool:
    """Whether these are numbers of samples by name."""
    return isinstance(value, dict) and all(type(n) is int and 0 <= n < 2**62 for n in value.values())
