"""Bytes of text files -> str, and rows -> what is known of a picture.

decode(bytes)       by byte order mark, else UTF-8, else Windows-1252: never a U+FFFD
alternatives(text)  one caption per line
Described           the columns, captions and split of one picture
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_art.captions.columns import (
    CLASS_COLUMNS,
    is_caption_column,
    is_no_name,
    ready_captions,
    text_of,
    unique,
)
from diffusion_art.sources.paths.splits import split_in_row

MAX_TEXT_BYTES = 2**20  # of a text or JSON about one picture
CP1252_NOTE = "texts read as Windows-1252; where that is wrong, save them as UTF-8"

_BOMS = (  # UTF-32 goes first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CP1252 = {byte: ord(bytes([byte]).decode("cp1252", "ignore") or chr(byte)) for byte in range(256)}


class Decoded(NamedTuple):
    """A text, and whether any of its lines was no UTF-8 and was read as Windows-1252."""

    text: str
    guessed: bool


def decode(data: bytes) -> Decoded:
    """The text of a file in UTF-8, UTF-16, UTF-32 or Windows-1252, which covers Latin-1."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return Decoded(data[len(mark) :].decode(encoding, "ignore"), guessed=False)
    data = data.removeprefix(codecs.BOM_UTF8)
    if bare := _utf16_without_mark(data[:1024]):
        return Decoded(data.decode(bare, "ignore"), guessed=False)
    try:
        return Decoded(data.decode(), guessed=False)
    except UnicodeDecodeError:  # line by line, for tables that were put together from several sources
        return Decoded("\n".join(map(_line, data.split(b"\n"))), guessed=True)


def read_text(path: Path) -> Decoded:
    return decode(path.read_bytes())


def alternatives(text: str) -> list[str]:
    """The lines of a caption file: each is a caption of its own, as kohya's and OneTrainer's users write them."""
    return unique(re.split(r"[\r\n]+", text))


def overlaid(columns: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """`columns` with `more` over them, but for numbers of artists, styles and the like where their names are known, and
    for the same names as `claude-monet`.
    """
    known = {
        name
        for name, text in more.items()
        if (_is_number(name, text) and not _is_number(name, columns.get(name) or "0"))
        or _is_slug_of(text, columns.get(name, ""))
    }
    return {**columns, **{name: text for name, text in more.items() if name not in known}}


def _is_number(name: str, text: str) -> bool:
    return is_no_name(name, text) or (text.isdigit() and name.lower() in CLASS_COLUMNS)


def _is_slug_of(text: str, name: str) -> bool:
    return "-" in text and text != name and text == name.lower().replace(" ", "-")


def _line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return codecs.charmap_decode(line, "strict", _CP1252)[0]


def _utf16_without_mark(head: bytes) -> str | None:
    """The byte order of UTF-16 without a mark, by the zeros of its ASCII characters; None for other text."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if len(head) < 4 or max(even, odd) * 4 < len(head) or min(even, odd) > max(even, odd) // 8:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


# ---------------------------------------------------------------------- what tables say of one picture


@dataclass(slots=True)
class Described:
    """What the tables say of one picture."""

    columns: dict[str, str] = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)
    split: str | None = None  # by a column
    split_of_table: str | None = None  # by the name of a table, or of a list of names

    def add(self, row: dict[str, Any], column: str | None) -> None:
        """One more row about a picture: first come the columns, then only what they left empty and more captions."""
        row = {name: value for name, value in row.items() if name != column}
        for name, value in row.items():
            if not self.columns.get(name) and (text := text_of(name, value)) is not None:
                self.columns[name] = text
        for caption in ready_captions(row):
            if caption not in self.captions:
                self.captions.append(caption)
        self.split = split_in_row(row) or self.split


def without_captions(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row but for its captions."""
    return {name: value for name, value in row.items() if not is_caption_column(name)}
