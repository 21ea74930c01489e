"""Any picture file -> upright sRGB uint8 of the size training wants -> JPEG, encoded once; and what bytes are by their
first few: pictures, also of formats that Pillow alone does not read (HEIC with `pillow-heif`, the others by no means
here), pointers to files elsewhere, other kinds.

    header checks -> decode -> upright -> over white -> resize -> sRGB -> uint8 [s s 3], or of its bucket's size

Colour management runs after the resize, on a few thousand pixels instead of millions. JPEGs are decoded at
1/2, 1/4 or 1/8 scale where that still leaves twice the wanted resolution for the resize to filter, and where that
brings them under the cap on pixels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np
import simplejpeg
from PIL import Image

from diffusion_art.errors import UserError
from diffusion_art.modes import WHITE, plain, to_srgb
from diffusion_art.sizes import Size, nearest

Fit = Literal["crop", "letterbox", "stretch"]

MAX_MEGAPIXELS = 50.0  # a header promising more is refused before a byte of it is decoded
MAX_PROGRESSIVE = 4  # times the cap: all coefficients of a progressive JPEG are kept in memory at once
MAX_PIXELS_PER_BYTE = 256  # a grey baseline JPEG of one shade has so many, two bits for a block of 64
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "PPM")  # never EPS: it would run an interpreter
FULL_CHROMA_UP_TO_PX = 128  # 4:4:4 below; halving the chroma of a small painting smears its colours

_ORIENTATION = 0x0112  # EXIF tag
_TURNED = range(5, 9)  # of its values those that swap width and height


class BadPictureError(Exception):
    """One picture cannot be used; the message is the reason. The builder counts, names and skips it."""


def check_fit(fit: str) -> Fit:
    """`fit`, proved to be a known mode. UserError for any other."""
    known = {name: name for name in get_args(Fit)}
    if fit not in known:
        raise UserError(f"fit={fit} is not a way to fit a picture. Choose one of: {', '.join(known)}.")
    return known[fit]


def load_picture(
    data: bytes | np.ndarray,
    *,
    image_size_px: int,
    fit: Fit = "crop",
    max_megapixels: float = MAX_MEGAPIXELS,
    buckets: Sequence[Size] = (),
) -> tuple[np.ndarray, tuple[int, int]]:
    """The picture as uint8 RGB [s s 3], and its original upright (width, height).

    `crop` keeps the largest centred square, `letterbox` keeps everything on a white square, `stretch` ignores
    the aspect ratio. With `buckets` the picture gets the size of the one that crops it least. An array that already
    has the wanted size is returned as it is. A JPEG of more than `max_megapixels` is decoded at a smaller scale.

    Raises:
        BadPictureError: broken, of no known format, empty, or of more than `max_megapixels` in another format.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3 or 0 in data.shape:
            raise BadPictureError(f"an array of {data.dtype} {list(data.shape)} is not uint8 [h w 3]")
        height, width = data.shape[:2]
        size = _wanted(width, height, image_size_px, buckets)
        if (width, height) == size:
            return np.ascontiguousarray(data), (width, height)
        return np.asarray(_resize(Image.fromarray(data), size, fit)), (width, height)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of size; we check the size ourselves
            with _own_cap(), _opened(data) as opened:
                _check_plausible(opened, len(data), max_megapixels)
                return _load(opened, image_size_px, fit, max_megapixels, buckets)
    except (BadPictureError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise BadPictureError(f"not a picture in a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow raises two dozen types on broken files, SyntaxError among them
        raise BadPictureError(f"{type(error).__name__}: {error}") from error


def encode_jpeg(image: np.ndarray, *, quality: int = 92) -> bytes:
    """uint8 RGB [h w 3] as JPEG; full chroma resolution up to the area of `FULL_CHROMA_UP_TO_PX`, 4:2:0 above."""
    subsampling = "444" if image.shape[0] * image.shape[1] <= FULL_CHROMA_UP_TO_PX**2 else "420"
    return simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling=subsampling)


@contextmanager
def _own_cap() -> Iterator[None]:
    """Pillow's own limit on pixels is lifted while ours is in force."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _opened(data: bytes) -> Image.Image:
    if other := pointer(data):
        raise BadPictureError(other)
    if reason := no_reader(data):
        raise BadPictureError(reason)
    return open_heic(data) if is_heic(data) else Image.open(io.BytesIO(data), formats=FORMATS)


def _check_plausible(image: Image.Image, data_bytes: int, max_megapixels: float) -> None:
    """A large picture of next to no bytes is damaged, or made to fill the memory."""
    pixels = image.width * image.height
    if pixels > max_megapixels * 1e6 and pixels > MAX_PIXELS_PER_BYTE * data_bytes:
        over = f"over the cap of {max_megapixels:g} megapixels"
        raise BadPictureError(f"{image.width} x {image.height} pixels, {over}, in {data_bytes} bytes")


def _load(
    image: Image.Image, image_size_px: int, fit: Fit, max_megapixels: float, buckets: Sequence[Size]
) -> tuple[np.ndarray, tuple[int, int]]:
    width, height = image.size
    turned = image.getexif().get(_ORIENTATION) in _TURNED
    size = _wanted(*((height, width) if turned else (width, height)), image_size_px, buckets)
    if image.format in ("JPEG", "MPO"):
        as_stored = (size[1], size[0]) if turned else size
        image.draft(None, _draft_size(image, as_stored, fit, max_megapixels))
    if image.width * image.height > max_megapixels * 1e6:
        raise BadPictureError(f"{width} x {height} pixels, over the cap of {max_megapixels:g} megapixels")
    profile = image.info.get("icc_profile")
    if turned:
        width, height = height, width
    small = _resize(plain(image), size, fit)
    return np.asarray(to_srgb(small, profile)), (width, height)


def _wanted(width: int, height: int, image_size_px: int, buckets: Sequence[Size]) -> Size:
    return nearest(width, height, buckets) if buckets else (image_size_px, image_size_px)


def _draft_size(image: Image.Image, size: Size, fit: Fit, max_megapixels: float) -> tuple[int, int]:
    """The (width, height) at or above which a JPEG is to be decoded: twice what is wanted, or what the cap leaves."""
    width, height = image.size
    times = width * height / (max_megapixels * 1e6)
    if times <= 1:
        wanted = _inner_size(width, height, size, fit)
        return 2 * wanted[0], 2 * wanted[1]
    if image.info.get("progressive") and times > MAX_PROGRESSIVE:
        return width, height
    wanted_px = 2 * max(_inner_size(width, height, size, fit))
    scales = (scale for scale in (1, 2, 4, 8) if scale**2 >= times)
    scale = max(next(scales, 8), min(8, max(width, height) // wanted_px))
    return max(1, width // scale), max(1, height // scale)


def _inner_size(width: int, height: int, size: Size, fit: Fit) -> tuple[int, int]:
    """(width, height) the whole picture would have at the scale it is resized to."""
    if fit == "stretch":
        return size
    scale = (max if fit == "crop" else min)(size[0] / width, size[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resize(image: Image.Image, size: Size, fit: Fit) -> Image.Image:
    """Antialiased (Lanczos) to exactly that size."""
    width, height = image.size
    if fit == "letterbox":
        inner = _inner_size(width, height, size, fit)
        small = image.resize(inner, Image.Resampling.LANCZOS)
        white = {"L": 255, "RGB": WHITE, "CMYK": (0, 0, 0, 0)}[image.mode]
        page = Image.new(image.mode, size, white)
        page.paste(small, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        return page
    if fit == "stretch":
        return image.resize(size, Image.Resampling.LANCZOS)
    kept = min(width, height * size[0] / size[1]), min(height, width * size[1] / size[0])
    left, top = (width - kept[0]) / 2, (height - kept[1]) / 2
    box = (left, top, left + kept[0], top + kept[1])
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


# ---------------------------------------------------------------------- what bytes are by their first few

HEAD_BYTES = 32  # by which `looks_like_picture` knows one
PICKLE = "pickles of Python, which may run any program and are not opened; save their pictures as PNG"
HEIC_EXTRA = "install pillow-heif"

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis", b"mif1", b"msf1"}
_MARKS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
_PNM = tuple(b"P%d" % kind + space for kind in range(1, 7) for space in (b"\n", b" ", b"\t", b"\r"))
_OTHERS = (  # what a file without a suffix may be
    (b"PK\3\4", "an archive; unpack it"),
    (b"\x1f\x8b", "an archive; unpack it"),
    (b"Rar!", "an archive; unpack it"),
    (b"7z\xbc\xaf", "an archive; unpack it"),
    (b"PAR1", "parquet without a suffix; rename them to .parquet"),
    (b"%PDF", "PDF"),
    (b"\x1aE\xdf\xa3", "video"),
    *((b"\x80" + bytes([version]), PICKLE) for version in range(2, 6)),
)
_NO_READER = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
)
_POINTERS = (
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself; `git lfs pull` in its repository brings that",
    ),
    (
        b"/annex/objects/",
        "a pointer of git-annex, not the file itself; `git annex get .` in its repository brings that",
    ),
)


def pointer(head: bytes) -> str | None:
    """What a file is that only points to another; None for one that is itself."""
    return _by_mark(head, _POINTERS)


def _by_mark(data: bytes, known: Iterable[tuple[bytes, str]]) -> str | None:
    return next((what for mark, what in known if data.startswith(mark)), None)


def can_read_heic() -> bool:
    return find_spec("pillow_heif") is not None


def is_heic(data: bytes) -> bool:
    """By the brands in the first box: `mif1` alone may also be AVIF."""
    return bool(_brands(data) & _HEIC_BRANDS)


def _brands(data: bytes) -> set[bytes]:
    """Of HEIC, AVIF and video, as far as `data` shows them."""
    if data[4:8] != b"ftyp":
        return set()
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return {box[at : at + 4] for at in range(0, len(box), 4)}


def no_reader(data: bytes) -> str | None:
    """Why pictures of this format are left out; None where they can be read, or are of no known format."""
    if is_heic(data):
        return None if can_read_heic() else f"HEIC pictures: {HEIC_EXTRA}"
    found = _by_mark(data, _NO_READER)
    return f"{found} pictures: no reader for this format" if found else None


def looks_like_picture(data: bytes) -> bool:
    """By its first bytes, also where there is no reader for it."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    bitmap = data[:2] == b"BM" and data[6:10] == bytes(4)
    boxed = bool(_brands(data) & (_HEIC_BRANDS | _AVIF_BRANDS))
    return data.startswith(_MARKS + _PNM) or _by_mark(data, _NO_READER) is not None or webp or bitmap or boxed


def other_kind(data: bytes) -> str | None:
    """What a file is by its first bytes, where it is of a known kind and no picture."""
    if data[4:8] == b"ftyp" or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return "video"
    return _by_mark(data, _OTHERS)


def open_heic(data: bytes) -> Image.Image:
    from pillow_heif import HeifImageFile  # here: an extra, and it takes a quarter of a second

    return HeifImageFile(io.BytesIO(data))
