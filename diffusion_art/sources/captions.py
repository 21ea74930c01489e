"""Columns -> one clean caption, by a template such as "{artist} / {title} / {style} / {genre} / {date}".

What stands between two fields is their separator. A field that is empty after cleaning goes away together
with its separator, and brackets or quotes set close around a field go with it:

    "{artist} / {title} ({date})"  ->  "Vincent van Gogh / The Starry Night (1889)"  or  "The Starry Night"
"""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Collection, Mapping

from diffusion_art.errors import UserError
from diffusion_art.sources.base import ART_TEMPLATE

CAPTION_COLUMNS = ("caption", "text", "prompt")  # where data sets keep a ready caption, best first
ART_COLUMNS = ("artist", "title", "style", "genre", "date")

_MISSING = {"", "None", "none", "nan", "NaN", "NaT", "null", "NULL", "<NA>", "N/A", "n/a"}
_YEAR = re.compile(r"(\d{3,4})\.0+")  # a year that went through a float column
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_PAIRS = {"(": ")", "[": "]", '"': '"', "'": "'", "“": "”", "«": "»"}


def clean(value: str | None) -> str:
    """One column's text as a caption should have it.

    Words for "missing" become empty, `1968.0` becomes 1968, HTML entities are resolved, Unicode is normalised
    (NFC), control characters go, every run of white space becomes one space. A value of several parts with
    " / " between (WikiArt's `description`) is cleaned part by part.
    """
    if not value:
        return ""
    text = _ENTITY.sub(lambda match: html.unescape(match.group()), value)
    if not text.isprintable():
        # Control characters, lone surrogates and unassigned ones go. Format characters (joiners of scripts
        # and emoji) stay, but for the byte order mark and the zero-width space.
        text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Cn"))
        text = text.replace("\ufeff", "").replace("\u200b", "")
    text = unicodedata.normalize("NFC", text)
    parts = [" ".join(part.split()) for part in re.split(r"(?:^|\s)/(?=\s|$)", text)]
    parts = [_YEAR.sub(r"\1", part) if _YEAR.fullmatch(part) else part for part in parts]
    return " / ".join(part for part in parts if part not in _MISSING)


def default_template(columns: Collection[str]) -> str | None:
    """The template that suits these columns: None for a ready caption, else the art columns there are."""
    if any(name in columns for name in CAPTION_COLUMNS):
        return None
    fields = [f"{{{name}}}" for name in ART_COLUMNS if name in columns]
    return " / ".join(fields) if len(fields) > 1 else None


class Captioner:
    """A caption from a picture's columns; "" where nothing is known.

    Without a template, and where all fields of the template are empty: the first filled of `CAPTION_COLUMNS`,
    then of the art columns in their usual order, then `description`.

    Raises:
        UserError: the template cannot be parsed, names no column, or names one that is not in `columns`.
    """

    def __init__(self, template: str | None, columns: Collection[str] | None = None) -> None:
        self.template = template
        self._fields, self._tail = _parse(template) if template is not None else ([], "")
        for _, _, name, _ in self._fields:
            if columns is not None and name not in columns:
                raise UserError(
                    f"caption_template asks for {{{name}}}, which the pictures do not have. "
                    f"Their columns: {', '.join(sorted(columns))}."
                )

    def __call__(self, columns: Mapping[str, str]) -> str:
        caption, filled = "", False
        for index, (separator, opening, name, closing) in enumerate(self._fields):
            value = clean(columns.get(name))
            if value:
                caption += (separator if filled or index == 0 else "") + opening + value + closing
                filled = True
        if filled:
            return " ".join((caption + self._tail).split())
        ready = next((text for name in CAPTION_COLUMNS if (text := clean(columns.get(name)))), "")
        art = " / ".join(text for name in ART_COLUMNS if (text := clean(columns.get(name))))
        return ready or art or clean(columns.get("description"))


def _parse(template: str) -> tuple[list[tuple[str, str, str, str]], str]:
    """[(separator before, opening, column, closing)] and the text after the last field."""
    mend = f'Write it like "{ART_TEMPLATE}".'
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"caption_template {template!r} cannot be read: {error}. {mend}") from None
    for _, name, form, conversion in pieces:
        if name is not None and (form or conversion or not name.isidentifier()):
            raise UserError(f"caption_template {template!r}: {{{name}}} is no plain column name. {mend}")
    names = [name for _, name, _, _ in pieces if name is not None]
    if not names:
        raise UserError(f"caption_template {template!r} names no column. {mend}")
    literals = [literal for literal, _, _, _ in pieces]
    if len(literals) == len(names):
        literals.append("")
    fields = []
    for index, name in enumerate(names):
        before, after = literals[index], literals[index + 1]
        opening = closing = ""
        if before and after and _PAIRS.get(before[-1]) == after[0]:
            opening, closing = before[-1], after[0]
            before, literals[index + 1] = before[:-1], after[1:]
        fields.append((before, opening, name, closing))
    return fields, literals[-1]
