"""Stored pictures to pixels: one function per payload codec, each straight into its row of a batch.

jpeg    the bytes as stored, JPEG as a rule
u8      RGB, one byte per channel, row after row: what decoding them gives
"""

import math
from io import BytesIO
from typing import TypeAlias

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

JPEG_MAGIC = b"\xff\xd8"
MAX_PIXELS = 50_000_000  # a header promising more is refused before a byte of it is decoded
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP")  # never EPS: it would run an interpreter

Buffer: TypeAlias = bytes | bytearray | memoryview


class BadPicture(Exception):
    """The bytes of one sample are no picture we can read."""


def decode(data: Buffer) -> np.ndarray:
    """RGB uint8 `h w 3` from stored bytes: simplejpeg for JPEG, Pillow for the rest.

    Raises:
        BadPicture: the bytes are no picture, are cut short, or promise more than MAX_PIXELS.
    """
    try:
        if data[:2] == JPEG_MAGIC:
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            _refuse_huge(int(height) * int(width))
            return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _refuse_huge(image.width * image.height)
            return np.asarray(image.convert("RGB"))
    except (
        ValueError,
        OSError,
        SyntaxError,  # Pillow's word for some broken PNGs
        UnidentifiedImageError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise BadPicture(str(error)) from error


def fit(image: np.ndarray, size_px: int) -> np.ndarray:
    """Square `size_px` picture: untouched when it already is, else centre-cropped and resized.

    Where the square is a whole number of times larger, each pixel is the mean of a block, else resampled (Lanczos).
    """
    height, width = image.shape[:2]
    if height == width == size_px:
        return image
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    if side % size_px == 0:
        return np.asarray(square.reduce(side // size_px))
    return np.asarray(square.resize((size_px, size_px), Image.Resampling.LANCZOS, reducing_gap=3.0))


def decode_into(data: Buffer, out: np.ndarray) -> None:
    """`fit(decode(data), s)` into `out` (uint8 [s s 3], contiguous), in place where the picture has that size.

    A JPEG that is 2, 4 or 8 times larger is decoded small, in place and in less time: of its blocks' frequencies those
    are left out that the smaller picture cannot show. That is their mean, but for edges, which stay a little sharper.

    Raises:
        BadPicture: as from `decode`; `out` then holds anything.
    """
    if data[:2] != JPEG_MAGIC:
        out[...] = fit(decode(data), out.shape[0])
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
    out[...] = fit(image, out.shape[0])


def _decode_small(data: Buffer, out: np.ndarray) -> bool:
    """Whether the JPEG was 2, 4 or 8 times as large as `out` and sound, and is now in it."""
    size_px = len(out)
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if height != width or height not in (2 * size_px, 4 * size_px, 8 * size_px):
            return False
        _refuse_huge(int(height) * int(width))
        simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=size_px, min_width=size_px, buffer=out, strict=True)
    except ValueError:
        return False
    return True


def copy_into(data: Buffer, out: np.ndarray) -> None:
    """The square picture whose pixels are `data` into `out` (as in decode_into), fitted where it has another size.

    Raises:
        BadPicture: `data` is empty, or not 3 bytes for each pixel of a square.
    """
    if len(data) == out.nbytes:
        out.reshape(-1)[:] = np.frombuffer(data, np.uint8)
        return
    side = math.isqrt(len(data) // 3)
    if side == 0 or 3 * side * side != len(data):
        raise BadPicture(f"{len(data)} bytes are no square RGB picture")
    out[...] = fit(np.frombuffer(data, np.uint8).reshape(side, side, 3), out.shape[0])


def _refuse_huge(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise BadPicture(f"a picture of {pixels:,} pixels is over the limit of {MAX_PIXELS:,}")
