"""In which columns a data set keeps its captions, and what says something of a painting: by their names, in which
upper and lower case, spaces, dashes and underscores make no difference: `TEXT`, `Artist Display Name`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

ART_COLUMNS = ("artist", "title", "style", "genre", "date")

# Best first; the last two are ArtEmis's and Artpedia's.
_READY = ("caption", "captions", "text", "txt", "prompt", "prompts", "utterance", "visualsentences")
_TELLING = re.compile(
    r"(?:.*[_ -])?(captions?|(?:alt)?texts?|prompts?|sentences?|comments?|raw)"
    r"(?:[_ -](str|strings?|en|english|clean(?:ed)?|final|full|raw|text|abstract))?"
)
_NUMBERED = re.compile(r"(captions?|texts?|prompts?|sentences?|comments?)[_ -]?\d+")
_LAST = (
    "altdescription",  # of Unsplash
    "alt",
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
_WEAK = ("authorname", "contributor")  # of a person who may have typed or given it; beside a title, the artist
_NO_NAME = re.compile(r"[0-9a-f]{32}|[Uu]nknown")
_TALKS = ("conversations", "conversation", "messages")  # LLaVA's: the assistant's answer tells of the picture
_PREFIX = r"^(?:https?://.*[/#]|(?:\w+|dublin core):)"  # of `XMP:Description`, `Dublin Core:Title`, an address
_SPACES_AND_PREFIX = re.compile(_PREFIX + r"|[\s_-]")
_LETTERS_AND_PREFIX = re.compile(_PREFIX + r"|[\W\d_]")
_TITLES = ("titre", "titel", "título", "titolo")
_ART = {  # as museums and data sets call them
    "artist": (
        "artist",
        "artistname",
        "artistdisplayname",
        "artisttitle",
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
        "primarymaker",
        "nonpresenterauthors",
        "authorname",
        "allartists",
        "contributor",
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
        "primarytitle",
        *_TITLES,
    ),
    "style": ("style", "movement", "artmovement", "movementlabel", "styletitle"),
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
        "yearasstring",
        "completitionyear",
        "inception",
        "primarydate",
        "productiondate",
        "datecreation",
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
    artist, title, style, genre, date; `subject` are those of them that say what it shows: not who made it and when.
    `telling` is the one further column whose name speaks of captions
    (`edited_prompt`), none where several do, and then a conversation about the picture. `last` say what kind of
    picture it is.
    """

    ready: tuple[str, ...]
    art: tuple[str, ...]
    telling: tuple[str, ...]
    last: tuple[str, ...]
    subject: tuple[str, ...]


def caption_columns(columns: Collection[str]) -> CaptionColumns:
    return _sorted_columns(tuple(columns))


def is_caption_column(name: str) -> bool:
    """Whether a list in this column may be a list of captions, and not of tags."""
    plain = name.strip().lower()
    return bool(_TELLING.fullmatch(plain)) or is_numbered(name) or plain in _TALKS


def is_art_column(name: str) -> bool:
    """Whether it says something of a painting: its artist, title, style, genre or date."""
    return bool(caption_columns([name]).art)


def is_no_name(column: str, text: str) -> bool:
    """Whether a column of artists, styles or genres has a number or the hash of a name in place of a name, or none."""
    return bool(text.isdigit() or _NO_NAME.fullmatch(text)) and plain_name(column) in _NAMES


def is_numbered(name: str) -> bool:
    """Whether it is one of several columns of captions: `caption_1`."""
    return bool(_NUMBERED.fullmatch(name.strip().lower()))


@lru_cache(maxsize=4096)
def plain_name(column: str) -> str:
    """In lower case, without spaces and the like, and without what stands before a colon."""
    return _SPACES_AND_PREFIX.sub("", column.lower())


@lru_cache(maxsize=256)
def _sorted_columns(columns: tuple[str, ...]) -> CaptionColumns:
    plain: dict[str, str] = {}
    for name in columns:
        plain.setdefault(plain_name(name), name)
    exact = [plain[word] for word in _READY if word in plain]
    numbered = [name for name in columns if is_numbered(name)]
    telling = [name for name in columns if name not in exact and _TELLING.fullmatch(name.strip().lower())]
    # of gallery-dl, where and when a picture was put on the internet
    site = {"category", "date"} if "subcategory" in plain else set()
    # `Artist(s)`, `title[1]`, `dc:title`; the plain names go first
    letters = {_LETTERS_AND_PREFIX.sub("", name.lower()): name for name in reversed(columns)}
    letters |= {name: name for name in ART_COLUMNS if name in columns}
    has = {kind: any(word in letters for word in words) for kind, words in _ART.items()}
    if "name" in letters and has["artist"] and not has["title"]:
        letters["title"] = letters["name"]  # of a painting, and not of a person or a file
    known = letters.keys() - site
    found = {kind: next((w for w in words if w in known), None) for kind, words in _ART.items()}
    art = {kind: letters[word] for kind, word in found.items() if word}
    last = [plain[word] for word in _LAST if word in plain and word not in site]
    telling = [*(telling if len(telling) == 1 else ()), *(plain[word] for word in _TALKS if word in plain)]
    subject = tuple(name for kind, name in art.items() if kind not in ("artist", "date"))
    if found["artist"] in _WEAK and not subject:
        del art["artist"]
    return CaptionColumns((*exact, *numbered), tuple(art.values()), tuple(telling), tuple(last), subject)
