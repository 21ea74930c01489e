"""Formats of pictures that Pillow alone does not read: HEIC with `pillow-heif`, the others by no means here."""

from __future__ import annotations

import io
from importlib.util import find_spec

from PIL import Image

HEAD_BYTES = 16  # by which `looks_like_picture` knows one
HEIC_EXTRA = "install pillow-heif"

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_MARKS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P3", b"P4", b"P5", b"P6")
_NO_READER = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
)


GIT_LFS = "a pointer of Git LFS, not the file itself; `git lfs pull` in its repository brings that"


def is_lfs_pointer(head: bytes) -> bool:
    return head.startswith(b"version https://git-lfs")


def can_read_heic() -> bool:
    return find_spec("pillow_heif") is not None


def is_heic(data: bytes) -> bool:
    """By the brands in the first box: `mif1` alone may also be AVIF."""
    if data[4:8] != b"ftyp":
        return False
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return any(box[at : at + 4] in _HEIC_BRANDS for at in range(0, len(box), 4))


def no_reader(data: bytes) -> str | None:
    """Why pictures of this format are left out; None where they can be read, or are of no known format."""
    if is_heic(data):
        return None if can_read_heic() else f"HEIC pictures: {HEIC_EXTRA}"
    found = next((name for mark, name in _NO_READER if data.startswith(mark)), None)
    return f"{found} pictures: no reader for this format" if found else None


def looks_like_picture(data: bytes) -> bool:
    """By its first bytes, also where there is no reader for it."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return (
        data.startswith(_MARKS) or webp or data[4:8] == b"ftyp" or any(data.startswith(mark) for mark, _ in _NO_READER)
    )


def open_heic(data: bytes) -> Image.Image:
    from pillow_heif import HeifImageFile  # here: an extra, and it takes a quarter of a second

    return HeifImageFile(io.BytesIO(data))
