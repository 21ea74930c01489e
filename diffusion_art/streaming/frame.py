"""The binary half of protocol v2: samples to a frame and back. Opens nothing.

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

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from isal.isal_zlib import crc32  # ten times as fast as zlib's

VERSION = 2

# What a receiver takes at most: a frame is some hundred pictures.
MAX_FRAME_BYTES = 64 * 2**20
MAX_SAMPLE_BYTES = MAX_FRAME_BYTES - 2**10  # image and caption, in a frame of their own
# What a sender aims at: one frame is full at either of these.
FRAME_BYTES = 2**20
FRAME_SAMPLES = 256

_HEADER = struct.Struct("<4sHHIIQII")
_MAGIC = b"dart"
_LAST = 1  # flag: the final frame of its request
_UNCHECKED = 2  # flag: no checksum, as the client wished
_ROW_BYTES = 8 + 4 + 4 + 1
_CRC_OFFSET = _HEADER.size - 4

Buffer: TypeAlias = bytes | bytearray | memoryview


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
