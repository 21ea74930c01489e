"""Columns -> one clean caption, by a template such as "{artist} / {title} / {style} / {genre} / {date}".

What stands between two fields is their separator. A field that is empty after cleaning goes away together
with its separator, and brackets or quotes set close around a field go with it. So does one that repeats the last:

    "{artist} / {title} ({date})"  ->  "Vincent van Gogh / The Starry Night (1889)"  or  "The Starry Night"

`{caption}` stands for a ready caption. A picture with several of them has as many captions by a template that names it,
and as many by none (`Captioning`).
"""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from diffusion_art.captions.columns import CLASS_COLUMNS, caption_columns, is_no_name, plain_name
from diffusion_art.errors import UserError

# The order of the descriptions in `Artificio/WikiArt`: "Artist / Title / Style / genre / date".
ART_TEMPLATE = "{artist} / {title} / {style} / {genre} / {date}"

CAPTIONS = "captions"  # of a sample's metadata: the texts to draw from, two or more; the first is its caption
READY = "ready_captions"  # those of its source, where a template made others of them
OWN = "{caption}"  # the template of a source that has ready captions

_MISSING = {"", "None", "none", "nan", "NaN", "NaT", "null", "NULL", "<NA>", "N/A", "n/a"}
_MISSING |= {"-", "undated", "n.d.", "date not known"}
_UNKNOWN = re.compile(r"[Uu]nknown[ _](artist|author|painter|title|style|genre|date|year)", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# A year that went through a column of floats, or of dates and times.
_YEAR = re.compile(r"(\d{3,4})(?:\.0+|-01-01(?:[ T]00:00(?::00(?:\.0+)?)?(?:Z|\+00:?00)?)?)")
_MIDNIGHT = re.compile(r"(\d{3,4}-\d\d-\d\d)[ T]00:00:00(?:\.0+)?(?:Z|\+00:?00)?")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_MARKUP = re.compile(
    r"</?(?:a|b|br|div|em|font|h[1-6]|i|li|ol|p|span|strong|su[bp]|u|ul)(?:\s[^<>]*)?/?>", re.IGNORECASE
)
_BREAK = re.compile(r"</?(?:br|div|h[1-6]|li|ol|p|ul)\b", re.IGNORECASE)  # of these tags
_COLUMN = re.compile(r"[^\W\d](?:[^{}\[\].!:]*[^{}\[\].!:\s])?")  # also `Artist Display Name`, `Artist(s)`
_PAIRS = {"(": ")", "[": "]", '"': '"', "'": "'", "“": "”", "«": "»"}


def clean(value: str | None) -> str:
    """One column's text as a caption should have it.

    Words for "missing" and "Unknown Artist" become empty, `1968.0` and `1968-01-01 00:00:00` become 1968, HTML
    entities are resolved and its tags go, Unicode is normalised (NFC), control characters go, every run of white
    space becomes one space. A value of several parts with " / " between (WikiArt's `description`) is cleaned part by
    part.
    """
    if not value:
        return ""
    text = _ENTITY.sub(lambda match: html.unescape(match.group()), value)
    if "<" in text:
        text = _MARKUP.sub(lambda match: " " if _BREAK.match(match.group()) else "", text)
    if not text.isprintable():
        # Control characters, lone surrogates and unassigned ones go. Format characters (joiners of scripts
        # and emoji) stay, but for the byte order mark and the zero-width space.
        text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cs", "Cn"))
        text = text.replace("\ufeff", "").replace("\u200b", "")
    text = unicodedata.normalize("NFC", text)
    parts = [" ".join(part.split()) for part in re.split(r"(?:^|\s)/(?=\s|$)", text)]
    return " / ".join(kept for part in parts if (kept := _part(part)))


def _part(text: str) -> str:
    if text in _MISSING or _UNKNOWN.fullmatch(text):
        return ""
    date = _YEAR.fullmatch(text) or _MIDNIGHT.fullmatch(text) if text[:1].isdigit() else None
    return date[1] if date else text


def default_template(columns: Collection[str]) -> str | None:
    """The template that suits these columns: None for a ready caption, else the art columns there are."""
    known = caption_columns(columns)
    if known.ready:
        return None
    fields = [f"{{{name}}}" for name in known.art]
    sure = known.subject or not (known.telling or known.last)
    return " / ".join(fields) if len(fields) > 1 and sure and all(map(nameable, known.art)) else None


def nameable(column: str) -> bool:
    """Whether a template can name a column."""
    return bool(_COLUMN.fullmatch(column))


class Captioner:
    """A caption from a picture's columns; "" where nothing is known.

    Without a template, and where all fields of the template are empty: the first filled column of ready captions,
    then the art columns in their usual order, then the only column whose name speaks of captions, `description`, and
    last what says what kind of picture it is (labels, tags, the folder's name). An artist or a date alone comes
    after texts and tags, before names of classes.

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

    @property
    def names(self) -> frozenset[str]:
        """The columns that the template names."""
        return frozenset(name for _, _, name, _ in self._fields)

    def __call__(self, columns: Mapping[str, str]) -> str:
        caption, filled = "", ""  # the last value
        for index, (separator, opening, name, closing) in enumerate(self._fields):
            value = _named(columns, name)
            if value and value.casefold() != filled.casefold():
                caption += (separator if filled or index == 0 else "") + opening + value + closing
                filled = value
        if filled:
            return " ".join((caption + self._tail).split())
        known = caption_columns(columns)
        said = {name: text for name in known.art if (text := _named(columns, name))}
        art = " / ".join(dict.fromkeys(said.values()))
        # the number of a class says nothing
        last = {name: text for name in known.last if not _NUMBER.fullmatch(text := clean(columns[name]))}
        ready, telling = ([clean(columns[name]) for name in names] for names in (known.ready, known.telling))
        best = [art, *telling, *last.values()]
        if art and not any(name in said for name in known.subject):
            classes = {name: text for name, text in last.items() if plain_name(name) in (*CLASS_COLUMNS, "folder")}
            best = [*telling, *(text for name, text in last.items() if name not in classes), art, *classes.values()]
        return next(filter(None, (*ready, *best)), "")


def _named(columns: Mapping[str, str], name: str) -> str:
    text = clean(columns.get(name))
    return "" if is_no_name(name, text) else text


def _parse(template: str) -> tuple[list[tuple[str, str, str, str]], str]:
    """[(separator before, opening, column, closing)] and the text after the last field."""
    mend = f'Write it like "{ART_TEMPLATE}".'
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"caption_template {template!r} cannot be read: {error}. {mend}") from None
    for _, name, form, conversion in pieces:
        if name is not None and (form or conversion or not nameable(name)):
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


# ---------------------------------------------------------------------- one caption, or several


class Captioning:
    """Callable: (columns, ready captions) -> the captions of a picture, at least one, which may be "".

    `template` None takes the ready captions, or what there is (Captioner); "" gives no captions.

    Raises:
        UserError: as from Captioner.
    """

    def __init__(self, template: str | None, columns: Collection[str] | None = None) -> None:
        self.template = template
        self._captioner = Captioner(template or None, columns)
        self._by_caption = template is None or OWN in template

    def __call__(self, columns: Mapping[str, str], ready: Sequence[str] = ()) -> tuple[str, ...]:
        if self.template == "":
            return ("",)
        if not ready or not self._by_caption:
            return (self._captioner(columns),)
        texts = (self._captioner({**columns, "caption": text}) for text in distinct(map(clean, ready)))
        return distinct(texts) or (self._captioner(columns),)

    @property
    def names(self) -> frozenset[str]:
        """The columns that the template names."""
        return self._captioner.names

    def metadata(self, columns: Mapping[str, Any], texts: Sequence[str], ready: Sequence[str]) -> dict[str, Any]:
        """The columns, and what else must be stored to draw among `texts` and to make others of `ready`."""
        raw = distinct(map(clean, ready))
        more: dict[str, Any] = {CAPTIONS: list(texts)} if len(texts) > 1 else {}
        if raw and self.template is not None:
            more[READY] = list(raw)
        elif len(raw) == 1:
            more["caption"] = raw[0]
        return {**columns, **more}


def distinct(texts: Iterable[str]) -> tuple[str, ...]:
    """Each text once and no empty one, in their order."""
    return tuple(dict.fromkeys(text for text in texts if text))
