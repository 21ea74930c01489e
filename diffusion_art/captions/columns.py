"""In which columns a data set keeps its captions, and what says something of a painting: by their names, in which
upper and lower case, spaces, dashes and underscores make no difference: `TEXT`, `Artist Display Name`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

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
_TITLES = ("titre", "titel", "título", "titolo")
_ART = {  # as museums and data sets call them
    "artist": (
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
        "creatorname",
        "makername",
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
        "datedisplay",
        "displaydate",
        "objectcreationdate",
        "yearcreated",
        "jahr",
        "datierung",
        "année",
        "fecha",
    ),
}
_NAMES = frozenset((*_ART["artist"], *_ART["style"], *_ART["genre"]))  # of which a number says nothing
CLASS_COLUMNS = _NAMES | frozenset(_LAST[_LAST.index("label") : _LAST.index("tags")])  # may hold class numbers


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
    return bool(_TELLING.fullmatch(plain)) or is_numbered(name) or plain in _TALKS


def is_class_number(name: str, text: str) -> bool:
    """Whether a column of artists, styles or genres has a number in place of a name."""
    return text.isdigit() and name.lower() in _NAMES


def is_numbered(name: str) -> bool:
    """Whether it is one of several columns of captions: `caption_1`."""
    return bool(_NUMBERED.fullmatch(name.strip().lower()))


@lru_cache(maxsize=256)
def _sorted_columns(columns: tuple[str, ...]) -> CaptionColumns:
    plain: dict[str, str] = {}
    for name in columns:
        plain.setdefault(re.sub(r"^\w+:|[\s_-]", "", name.lower()), name)  # also `XMP:Description`
    exact = [plain[word] for word in _READY if word in plain]
    numbered = [name for name in columns if is_numbered(name)]
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
