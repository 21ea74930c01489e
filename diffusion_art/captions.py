"""Columns -> one clean caption, by a template such as "{artist} / {title} / {style} / {genre} / {date}".

What stands between two fields is their separator. A field that is empty after cleaning goes away together
with its separator, and brackets or quotes set close around a field go with it:

    "{artist} / {title} ({date})"  ->  "Vincent van Gogh / The Starry Night (1889)"  or  "The Starry Night"

In which columns a data set keeps its captions is seen by the columns' names, in which upper and lower case, spaces,
dashes and underscores make no difference: `TEXT`, `Artist Display Name`.
"""

from __future__ import annotations

import ast
import html
import json
import re
import string
import unicodedata
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from diffusion_art.errors import UserError

# The order of the descriptions in `Artificio/WikiArt`: "Artist / Title / Style / genre / date".
ART_TEMPLATE = "{artist} / {title} / {style} / {genre} / {date}"

_MISSING = {"", "None", "none", "nan", "NaN", "NaT", "null", "NULL", "<NA>", "N/A", "n/a"}
_UNKNOWN = re.compile(r"[Uu]nknown[ _](artist|author|painter|title|style|genre|date|year)", re.IGNORECASE)
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
    return " / ".join(fields) if len(fields) > 1 and all(map(nameable, known.art)) else None


def nameable(column: str) -> bool:
    """Whether a template can name a column."""
    return bool(_COLUMN.fullmatch(column))


class Captioner:
    """A caption from a picture's columns; "" where nothing is known.

    Without a template, and where all fields of the template are empty: the first filled column of ready captions,
    then the art columns in their usual order, then the only column whose name speaks of captions, `description`, and
    last what says what kind of picture it is (labels, tags, the folder's name).

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
        caption, filled = "", False
        for index, (separator, opening, name, closing) in enumerate(self._fields):
            value = _named(columns, name)
            if value:
                caption += (separator if filled or index == 0 else "") + opening + value + closing
                filled = True
        if filled:
            return " ".join((caption + self._tail).split())
        known = caption_columns(columns)
        art = (text for name in known.art if (text := _named(columns, name)))
        last = (text for name in known.last if not (text := clean(columns[name])).isdigit())  # no number of a class
        ready, telling = (map(clean, map(columns.__getitem__, names)) for names in (known.ready, known.telling))
        return next(filter(None, ready), "") or " / ".join(art) or next(filter(None, (*telling, *last)), "")


def _named(columns: Mapping[str, str], name: str) -> str:
    text = clean(columns.get(name))
    return "" if is_class_number(name, text) else text


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


# ---------------------------------------------------------------------- columns by their names

ART_COLUMNS = ("artist", "title", "style", "genre", "date")

_READY = ("caption", "captions", "text", "txt", "prompt", "prompts", "utterance")  # best first; the last is ArtEmis's
_TELLING = re.compile(
    r"(?:.*[_ -])?(captions?|(?:alt)?texts?|prompts?|sentences?|comments?|raw)"
    r"(?:[_ -](str|strings?|en|english|clean(?:ed)?|final|full|raw|text|abstract))?"
)
_NUMBERED = re.compile(r"(captions?|texts?|prompts?|sentences?|comments?)[_ -]?\d+")
_LAST = (
    "description",
    "imagedescription",
    "gridtitle",
    "closeupunifieddescription",
    "tagstring",
    "label",
    "labels",
    "class",
    "classname",
    "category",
    "categories",
    "tags",
    "keywords",
    "folder",
)
_TALKS = ("conversations", "conversation", "messages")  # LLaVA's: the assistant's answer tells of the picture
_ASSISTANTS = ("gpt", "assistant", "model")
_TITLES = ("titre", "titel", "título", "titolo")
_ART = {  # as museums and data sets call them
    "artist": (
        *(
            "artist",
            "artistname",
            "artistdisplayname",
            "artistdisplay",
            "artists",
            "author",
            "painter",
            "creator",
            "maker",
            "principalmaker",
            "principalorfirstmaker",
        ),
        *(
            "creators",
            "dccreator",
            "creatorlabel",
            "artisttitle",
            "objectcreator",
            "attribution",
            "artiste",
            "artista",
            "auteur",
            "künstler",
            "kunstenaar",
            "artistfullname",
            "artistname",
            "creatorname",
            "makername",
        ),
    ),
    "title": (
        "title",
        "objecttitle",
        "paintingname",
        "paintingtitle",
        "worktitle",
        "artworktitle",
        "titleenglish",
        "titles",
        "itemlabel",
        "paintinglabel",
        "artworkname",
        "workname",
        *_TITLES,
    ),
    "style": ("style", "movement", "artmovement"),
    "genre": ("genre",),
    "date": (
        *(
            "date",
            "year",
            "objectdate",
            "datetext",
            "creationdate",
            "creationyear",
            "datecreated",
            "dating",
            "dated",
            "datemade",
        ),
        *(
            "datedisplay",
            "displaydate",
            "objectcreationdate",
            "yearcreated",
            "creationyear",
            "jahr",
            "datierung",
            "année",
            "fecha",
        ),
    ),
}
_NAMES = frozenset((*_ART["artist"], *_ART["style"], *_ART["genre"]))  # of which a number says nothing
CLASS_COLUMNS = _NAMES | frozenset(_LAST[_LAST.index("label") : _LAST.index("tags")])  # may hold class numbers
_TEXT_FIELDS = ("raw", "caption", "text", "sentence", "en", "english")  # of a record in place of a caption
_MAX_LIST_CHARACTERS = 2**16


class CaptionColumns(NamedTuple):
    """The columns of one data set by their use, best first.

    `ready` hold captions, numbered ones (`caption_1`, ...) alternatives. `art` are those of a painting in the order
    artist, title, style, genre, date. `telling` is the one further column whose name speaks of captions
    (`edited_prompt`), none where several do, and then a conversation about the picture. `last` say what kind of
    picture it is.
    """

    ready: tuple[str, ...]
    art: tuple[str, ...]
    telling: tuple[str, ...]
    last: tuple[str, ...]


def caption_columns(columns: Collection[str]) -> CaptionColumns:
    return _sorted_columns(tuple(columns))


def is_caption_column(name: str) -> bool:
    """Whether a list in this column may be a list of captions, and not of tags."""
    plain = name.strip().lower()
    return bool(_TELLING.fullmatch(plain)) or _is_numbered(name) or plain in _TALKS


def is_class_number(name: str, text: str) -> bool:
    """Whether a column of artists, styles or genres has a number in place of a name."""
    return text.isdigit() and name.lower() in _NAMES


def ready_captions(row: Mapping[str, Any]) -> list[str]:
    """Every caption in a row of raw values: of its best filled column of captions, or of all numbered ones."""
    known = caption_columns(row)
    for name in (*known.ready, *known.telling):
        if found := unique(strings(row[name])):
            if _is_numbered(name):
                return unique([text for other in known.ready if _is_numbered(other) for text in strings(row[other])])
            return found
    return []


def unique(texts: list[str]) -> list[str]:
    """Texts without white space around them, each once; empty ones go."""
    return list(dict.fromkeys(stripped for text in texts if (stripped := text.strip())))


def strings(value: Any, levels: int = 16) -> list[str]:
    """Every caption in a value of a caption column; a list may also be written out, and of a conversation the first
    answer counts. What lies more than `levels` deep is left out.
    """
    if levels < 0:
        return []
    if isinstance(value, str):
        return listed(value) or [value]
    if isinstance(value, list) and value and all(map(_is_turn, value)):
        return _first_answer(value, levels - 1)
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):  # a map of parquet
        return strings(dict(value), levels - 1)
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in strings(_without_kind(item), levels - 1)]
    if isinstance(value, dict):
        named = next((strings(value[name], levels - 1) for name in _TEXT_FIELDS if value.get(name)), [])
        return named or [text for text in value.values() if isinstance(text, str) and " " in text.strip()]
    return [] if value is None else [str(value)]


def _without_kind(item: Any) -> Any:
    """Of a pair such as ["alt", "a castle"] the text."""
    pair = isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item)
    return item[1] if pair and item[0].isalpha() and " " in item[1].strip() and len(item[0]) < 16 else item


def _is_turn(item: Any) -> bool:
    """Whether it is what someone says in a conversation, as LLaVA or OpenAI write it."""
    return isinstance(item, dict) and ({"from", "value"} <= item.keys() or {"role", "content"} <= item.keys())


def _first_answer(turns: list[dict[str, Any]], levels: int) -> list[str]:
    """What the assistant says first, without the mark of the picture."""
    said = [turn for turn in turns if str(turn.get("from", turn.get("role"))).lower() in _ASSISTANTS]
    texts = (" ".join(strings(turn.get("value", turn.get("content")), levels)) for turn in said)
    return list(filter(None, (text.replace("<image>", " ").strip() for text in texts)))[:1]


def listed(text: str) -> list[str]:
    """The texts of a list written out as JSON or by Python: '["a dog", "a black dog"]', "['a dog']"; else []."""
    found = _written_list(text) if text.startswith(('["', "['")) else []
    return found if all(isinstance(item, str) for item in found) else []


def records_in(text: str) -> list[dict[str, Any]]:
    """The same of records: '[{"name": "Monet"}]'."""
    found = _written_list(text) if text.startswith("[{") else []
    return found if all(isinstance(item, dict) for item in found) else []


def _written_list(text: str) -> list[Any]:
    if len(text) > _MAX_LIST_CHARACTERS:
        return []
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else []
    return []


def _is_numbered(name: str) -> bool:
    return bool(_NUMBERED.fullmatch(name.strip().lower()))


@lru_cache(maxsize=256)
def _sorted_columns(columns: tuple[str, ...]) -> CaptionColumns:
    plain: dict[str, str] = {}
    for name in columns:
        plain.setdefault(re.sub(r"^\w+:|[\s_-]", "", name.lower()), name)  # also `XMP:Description`
    exact = [plain[word] for word in _READY if word in plain]
    numbered = [name for name in columns if _is_numbered(name)]
    telling = [name for name in columns if name not in exact and _TELLING.fullmatch(name.strip().lower())]
    art = [name for name in ART_COLUMNS if name in columns]
    if len(art) < 2 or "artist" in art:
        # `Artist(s)`, `title[1]`, `dc:title`
        letters = {re.sub(r"^\w+:|[\W\d_]", "", name.lower()): name for name in reversed(columns)}
        found = {kind: next((letters[w] for w in words if w in letters), None) for kind, words in _ART.items()}
        plain_ones = {name: name for name in art} if len(art) > 1 else {}  # these go first; of others the date is sure
        kinds = {**dict.fromkeys(ART_COLUMNS), **({"date": found["date"]} if plain_ones else found), **plain_ones}
        art = [name for name in kinds.values() if name]
    site = {"category"} if "subcategory" in plain else set()  # gallery-dl's: where a picture was downloaded
    last = [plain[word] for word in _LAST if word in plain and word not in site]
    telling = [*(telling if len(telling) == 1 else ()), *(plain[word] for word in _TALKS if word in plain)]
    return CaptionColumns((*exact, *numbered), tuple(art), tuple(telling), tuple(last))
