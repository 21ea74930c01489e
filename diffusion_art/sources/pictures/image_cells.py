"""The picture in a cell of a table: bytes, a record of bytes and path, a list of either, or text in base64."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_art.modes import DATA_URI, from_base64
from diffusion_art.sources.pictures.formats import looks_like_picture

_IN_TEXT = re.compile(rb"[\t,|;:\"' ](?:data:image/[\w.+-]+;base64,|(?:/9j/|iVBORw0KGgo|R0lGODlh|UklGR)[\w+/]{40})")
_HEAD_CHARACTERS = 64  # of base64: 48 bytes of a picture
_LOOKED_AT_BYTES = 2**16


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
