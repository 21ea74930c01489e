"""Stored pictures to pixels: one function per payload codec, each straight into its row of a batch.

jpeg      the bytes as stored, JPEG as a rule
u8        RGB, one byte per channel, row after row: what decoding them gives
latents   numbers of an encoder, whose digest follows the word

A new form is an entry in `PAYLOADS`: how its bytes become a row of a batch, and who makes them. Batches are the same in
every form; of latents within bf16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from diffusion_art.modes import upright_rgb
from diffusion_art.shards.side_files import LATENTS, BadRecord, read_record
from diffusion_art.sizes import Size

if TYPE_CHECKING:
    from diffusion_art.shards.mixture import Shards

JPEG_MAGIC = b"\xff\xd8"
_EXIF = b"Exif\0\0"  # near the beginning of a camera's JPEG, which may lie on its side; ours have none
_EXIF_WITHIN = 64  # bytes
MAX_PIXELS = 50_000_000  # a header promising more is refused before a byte of it is decoded
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP")  # never EPS: it would run an interpreter

Buffer: TypeAlias = bytes | bytearray | memoryview


class BadPicture(Exception):
    """The bytes of one sample are no picture we can read."""


def decode(data: Buffer) -> np.ndarray:
    """RGB uint8 `h w 3` from stored bytes: simplejpeg for JPEG, Pillow for the rest, as `prepare` reads it.

    Raises:
        BadPicture: the bytes are no picture, are cut short, or promise more than MAX_PIXELS.
    """
    try:
        if _is_plain_jpeg(data):
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            _refuse_huge(int(height) * int(width))
            return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _refuse_huge(image.width * image.height)
            return np.asarray(upright_rgb(image))
    except (BadPicture, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadPicture(f"no picture in a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow raises two dozen types on broken files
        raise BadPicture(str(error)) from error


def _is_plain_jpeg(data: Buffer) -> bool:
    return data[:2] == JPEG_MAGIC and _EXIF not in bytes(data[:_EXIF_WITHIN])


def fit(image: np.ndarray, size: Size) -> np.ndarray:
    """The picture in this size: untouched when it has it already, else centre-cropped to its shape and resized.

    Where what is kept is a whole number of times larger, each pixel is the mean of a block, else resampled (Lanczos).
    """
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    kept = min(width, height * size[0] // size[1]), min(height, width * size[1] // size[0])
    top, left = (height - kept[1]) // 2, (width - kept[0]) // 2
    piece = Image.fromarray(image[top : top + kept[1], left : left + kept[0]])
    times = kept[0] // size[0]
    if kept == (times * size[0], times * size[1]):
        return np.asarray(piece.reduce(times))
    return np.asarray(piece.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def decode_into(data: Buffer, out: np.ndarray) -> None:
    """`fit(decode(data), size)` into `out` (uint8 [h w 3], contiguous), in place where the picture has that size.

    A JPEG that is 2, 4 or 8 times larger is decoded small, in place and in less time: of its blocks' frequencies those
    are left out that the smaller picture cannot show. That is their mean, but for edges, which stay a little sharper.

    Raises:
        BadPicture: as from `decode`; `out` then holds anything.
    """
    if not _is_plain_jpeg(data):
        out[...] = fit(decode(data), _size_of(out))
        return
    try:
        image = simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out, strict=True)
        if image.shape == out.shape:
            return
        image = image.copy()  # a smaller one, which lies within `out`
    except ValueError:  # broken, or larger than `out`
        if _decode_small(data, out):
            return
        image = decode(data)
    out[...] = fit(image, _size_of(out))


def _decode_small(data: Buffer, out: np.ndarray) -> bool:
    """Whether the JPEG was 2, 4 or 8 times as large as `out` and sound, and is now in it."""
    rows, columns = out.shape[:2]
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if (height, width) not in ((times * rows, times * columns) for times in (2, 4, 8)):
            return False
        _refuse_huge(int(height) * int(width))
        simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=rows, min_width=columns, buffer=out, strict=True)
    except ValueError:
        return False
    return True


def copy_into(data: Buffer, out: np.ndarray) -> None:
    """The picture whose pixels are `data` into `out` (as in decode_into), of whose shape it is, fitted where it is
    larger or smaller.

    Raises:
        BadPicture: `data` is empty, or not 3 bytes for each pixel of that shape.
    """
    if len(data) == out.nbytes:
        out.reshape(-1)[:] = np.frombuffer(data, np.uint8)
        return
    columns, rows = _size_of(out)
    height = math.isqrt(len(data) * rows // (3 * columns))
    width = height * columns // rows
    if height * width == 0 or 3 * height * width != len(data):
        raise BadPicture(f"{len(data)} bytes are no RGB picture of the shape {columns}x{rows}")
    out[...] = fit(np.frombuffer(data, np.uint8).reshape(height, width, 3), _size_of(out))


def _size_of(out: np.ndarray) -> Size:
    return out.shape[1], out.shape[0]


def _refuse_huge(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise BadPicture(f"a picture of {pixels:,} pixels is over the limit of {MAX_PIXELS:,}")


# ---------------------------------------------------------------------- the forms in which they travel


@dataclass(frozen=True)
class Payload:
    """`unpack(data, out)` writes a picture into a row of a batch [h, w, 3], uint8; BadPicture where it cannot.

    `make(shards, cache=..., progress=...)` gives every `ShardSet` of `shards` the form (`ShardSet.forms`), kept in the
    folder `cache`; None for a form that is stored, beside the pictures or in their place. Rows of a batch that
    is `encoded` hold the numbers of a record (side_files.py) in place of pixels.
    """

    unpack: Callable[[Buffer, np.ndarray], None]
    make: Callable[..., None] | None = None
    encoded: bool = False


def _decoded(shards: Shards, *, cache: str | Path | None, progress: bool) -> None:
    from diffusion_art.shards.decoded import predecode  # loads what a server can otherwise do without

    predecode(shards, cache=cache, progress=progress)


def _recorded(data: Buffer, out: np.ndarray) -> None:
    try:
        record = read_record(data)
    except BadRecord as error:
        raise BadPicture(str(error)) from error
    channels, height, width, _ = record.shape
    if (channels, height, 2 * width) != out.shape or len(record.payload) != out.nbytes:
        raise BadPicture(
            f"it has {len(record.payload)} bytes of latents {channels} x {height} x {width}, where {out.nbytes} of "
            f"{out.shape[0]} x {out.shape[1]} x {out.shape[2] // 2} are wanted"
        )
    out[...] = np.frombuffer(record.payload, np.uint8).reshape(out.shape)


PAYLOADS = {
    "jpeg": Payload(decode_into),
    "u8": Payload(copy_into, _decoded),
    LATENTS: Payload(_recorded, encoded=True),
}


def payload_of(codec: str) -> Payload:
    """That of a codec as it is called on the wire, whatever travels before it."""
    return PAYLOADS[codec.partition("+")[0].partition(":")[0]]


def is_made(codec: str) -> bool:
    """Whether pictures do not lie in this form, so that somebody has to make it."""
    return payload_of(codec).make is not None


def give(shards: Shards, codec: str, *, cache: str | Path | None = None, progress: bool = True) -> None:
    """Let `shards` give their pictures in this form too.

    Raises:
        UserError: no room for it in `cache`, or no leave to write there.
    """
    if (make := payload_of(codec).make) is not None:
        make(shards, cache=cache, progress=progress)
