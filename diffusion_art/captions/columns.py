"""In which columns data sets keep their captions, by the columns' names, and the captions in a value of one.

Upper and lower case, spaces, dashes and underscores make no difference: `TEXT`, `Artist Display Name`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

ART_COLUMNS = ("artist", "title", "style", "genre", "date")

_READY = ("caption", "captions", "text", "txt", "prompt", "prompts")  # best first
_TELLING = re.compile(
    r"(?:.*[_ -])?(captions?|(?:alt)?texts?|prompts?|sentences?|comments?|raw)"
    r"(?:[_ -](str|strings?|en|english|clean(?:ed)?|final|full|raw|text))?"
)
_NUMBERED = re.compile(r"(captions?|texts?|prompts?|sentences?|comments?)[_ -]?\d+")
_LAST = ("description", "label", "labels", "class", "classname", "category", "categories", "tags", "keywords", "folder")
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
        ),
        *("creators", "objectcreator", "attribution", "artiste", "artista", "auteur", "künstler", "kunstenaar"),
    ),
    "title": (
        "title",
        "objecttitle",
        "paintingname",
        "paintingtitle",
        "worktitle",
        "artworktitle",
        "titleenglish",
        *_TITLES,
    ),
    "style": ("style", "movement", "artmovement"),
    "genre": ("genre",),
    "date": (
        *("date", "year", "objectdate", "datetext", "creationdate", "datecreated", "dating", "dated", "datemade"),
        *("datedisplay", "displaydate", "objectcreationdate", "yearcreated", "jahr", "datierung", "année", "fecha"),
    ),
}
_NAMES = frozenset((*_ART["artist"], *_ART["style"], *_ART["genre"]))  # of which a number says nothing
CLASS_COLUMNS = _NAMES | frozenset(_LAST[1:7])  # may hold class numbers
_TEXT_FIELDS = ("raw", "caption", "text", "sentence", "en", "english")  # of a record in place of a caption
_MAX_LIST_CHARACTERS = 2**16


class CaptionColumns(NamedTuple):
    """The columns of one data set by their use, best first.

    `ready` hold captions, numbered ones (`caption_1`, ...) alternatives. `art` are those of a painting in the order
    artist, title, style, genre, date. `telling` is the one further column whose name speaks of captions
    (`edited_prompt`), empty where several do. `last` say what kind of picture it is.
    """

    ready: tuple[str, ...]
    art: tuple[str, ...]
    telling: tuple[str, ...]
    last: tuple[str, ...]


def caption_columns(columns: Collection[str]) -> CaptionColumns:
    return _sorted_columns(tuple(columns))


def is_caption_column(name: str) -> bool:
    """Whether a list in this column may be a list of captions, and not of tags."""
    return bool(_TELLING.fullmatch(name.strip().lower())) or _is_numbered(name)


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


def strings(value: Any) -> list[str]:
    """Every caption in a value of a caption column; a list may also be written out."""
    if isinstance(value, str):
        return listed(value) or [value]
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):  # a map of parquet
        return strings(dict(value))
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in strings(item)]
    if isinstance(value, dict):
        return next((strings(value[name]) for name in _TEXT_FIELDS if value.get(name)), [])
    return [] if value is None else [str(value)]


def listed(text: str) -> list[str]:
    """The texts of a list written out as JSON or by Python: '["a dog", "a black dog"]', "['a dog']"; else []."""
    if not text.startswith(('["', "['")) or len(text) > _MAX_LIST_CHARACTERS:
        return []
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) and all(isinstance(item, str) for item in found) else []
    return []


def _is_numbered(name: str) -> bool:
    return bool(_NUMBERED.fullmatch(name.strip().lower()))


@lru_cache(maxsize=256)
def _sorted_columns(columns: tuple[str, ...]) -> CaptionColumns:
    plain: dict[str, str] = {}
    for name in columns:
        plain.setdefault(re.sub(r"[\s_-]", "", name.lower()), name)
    exact = [plain[word] for word in _READY if word in plain]
    numbered = [name for name in columns if _is_numbered(name)]
    telling = [name for name in columns if name not in exact and _TELLING.fullmatch(name.strip().lower())]
    art = [name for name in ART_COLUMNS if name in columns]
    if len(art) < 2:
        letters = {re.sub(r"[\W\d_]", "", name.lower()): name for name in reversed(columns)}  # `Artist(s)`, `title[1]`
        art = [found for words in _ART.values() if (found := next((letters[w] for w in words if w in letters), None))]
    last = [plain[word] for word in _LAST if word in plain]
    return CaptionColumns((*exact, *numbered), tuple(art), tuple(telling) if len(telling) == 1 else (), tuple(last))
