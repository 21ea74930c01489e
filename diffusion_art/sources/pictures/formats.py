"""What bytes are by their first few: pictures, also of formats that Pillow alone does not read (HEIC with
`pillow-heif`, the others by no means here), pointers to files elsewhere, other kinds. And the picture in a cell of a
table: bytes, a record of bytes and path, a list of either, or text in base64.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from diffusion_art.modes import DATA_URI, from_base64

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
_IN_TEXT = re.compile(rb"[\t,|;:\"' ](?:data:image/[\w.+-]+;base64,|(?:/9j/|iVBORw0KGgo|R0lGODlh|UklGR)[\w+/]{40})")
_HEAD_CHARACTERS = 64  # of base64: 48 bytes of a picture
_LOOKED_AT_BYTES = 2**16


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


# ---------------------------------------------------------------------- pictures in the cells of a table


class Cell(NamedTuple):
    """The first picture in a cell, as bytes or by its path, and how many more there are."""

    data: bytes | None
    path: str | None = None
    more: int = 0


def cell_of(value: Any) -> Cell:
    if isinstance(value, list):
        filled = [item for item in value if item is not None]
        return cell_of(filled[0])._replace(more=len(filled) - 1) if filled else Cell(None)
    if isinstance(value, dict):
        return Cell(value.get("bytes"), value.get("path"))
    return Cell(from_base64(value) if isinstance(value, str) else value)


def identity_of(value: Any) -> bytes | str | None:
    """What tells the picture in a cell from another: its bytes or its text, or its path where there are none."""
    if isinstance(value, str):
        return value
    cell = cell_of(value)
    return cell.data or cell.path


def is_base64(value: Any) -> bool:
    """Whether a text is a picture, by its first characters."""
    if not isinstance(value, str):
        return False
    uri = DATA_URI.match(value)
    start = uri.end() if uri else 0
    return looks_like_picture(from_base64(value[start : start + _HEAD_CHARACTERS]))


def holds_base64(file: Path) -> bool:
    """Whether a table that is text has pictures in base64, as far as its first rows show it."""
    try:
        with file.open("rb") as opened:
            return _IN_TEXT.search(opened.read(_LOOKED_AT_BYTES)) is not None
    except OSError:
        return False
