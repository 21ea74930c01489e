"""In which columns a data set keeps its captions, and what says something of a painting: by their names, in which
upper and lower case, spaces, dashes and underscores make no difference: `TEXT`, `Artist Display Name`. The captions
in their raw values: one text, several, written-out lists, records, conversations. And raw values as text:

as_text(value)        what a column of a shard keeps: lists are joined by ", "
text_of(name, value)  the same of any value of that column
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

ART_COLUMNS = ("artist", "title", "style", "genre", "date")

# Best first; the last two are ArtEmis's and Artpedia's.
_READY = ("caption", "captions", "text", "txt", "prompt", "prompts", "utterance", "visualsentences")
_TELLING = re.compile(
    r"(?:.*[_ -])?(captions?|(?:alt)?texts?|prompts?|sentences?|comments?|raw)"
    r"(?:[_ -](str|strings?|en|english|clean(?:ed)?|final|full|raw|text|abstract))?"
)
_NUMBERED = re.compile(r"(captions?|texts?|prompts?|sentences?|comments?)[_ -]?\d+")
_KINDS = (  # of pictures: best first; the first is Unsplash's
    "altdescription alt description imagedescription gridtitle closeupunifieddescription tagstring label labels "
    "class classname category categories tags keywords folder"
)
_LAST = _KINDS.split()
_WEAK = ("authorname", "contributor")  # of a person who may have typed or given it; beside a title, the artist
_NO_NAME = re.compile(r"[0-9a-f]{32}|[Uu]nknown")
_TALKS = ("conversations", "conversation", "messages")  # LLaVA's: the assistant's answer tells of the picture
_PREFIX = r"^(?:https?://.*[/#]|(?:\w+|dublin core):)"  # of `XMP:Description`, `Dublin Core:Title`, an address
_SPACES_AND_PREFIX = re.compile(_PREFIX + r"|[\s_-]")
_LETTERS_AND_PREFIX = re.compile(_PREFIX + r"|[\W\d_]")
_WORDS = {  # as museums and data sets call them
    "artist": (
        "artist artistname artistdisplayname artisttitle artistdisplay artists author painter creator maker "
        "principalmaker principalorfirstmaker creators dccreator creatorlabel objectcreator attribution artiste "
        "artista auteur künstler kunstenaar artistfullname creatorname makername primarymaker nonpresenterauthors "
        "authorname allartists contributor"
    ),
    "title": (
        "title objecttitle paintingname paintingtitle worktitle artworktitle titleenglish titles itemlabel "
        "paintinglabel artworkname workname primarytitle titre titel título titolo"
    ),
    "style": "style movement artmovement movementlabel styletitle",
    "genre": "genre",
    "date": (
        "date year objectdate datetext creationdate creationyear datecreated dating dated datemade datedisplay "
        "displaydate objectcreationdate yearcreated yearasstring completitionyear inception primarydate "
        "productiondate datecreation jahr datierung année fecha"
    ),
}
_ART = {kind: words.split() for kind, words in _WORDS.items()}
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


# ---------------------------------------------------------------------- what their values hold

_ASSISTANTS = ("gpt", "assistant", "model")
_TEXT_FIELDS = ("raw", "caption", "text", "sentence", "en", "english")  # of a record in place of a caption
_MAX_LIST_CHARACTERS = 2**16


def ready_captions(row: Mapping[str, Any]) -> list[str]:
    """Every caption in a row of raw values: of its best filled column of captions, or of all numbered ones."""
    known = caption_columns(row)
    for name in (*known.ready, *known.telling):
        if found := unique(strings(row[name])):
            if is_numbered(name):
                return unique([text for other in known.ready if is_numbered(other) for text in strings(row[other])])
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


# ---------------------------------------------------------------------- values as text

# of a person, a title, a tag; of Cleveland's makers, of Denmark's SMK and of Omeka S
_CALLED = ("name", "full_name", "username", "title", "label", "description", "period", "displayDate", "@value")


def as_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def text_of(name: str, value: Any) -> str | None:
    """A raw value as a column keeps it: of captions the first, of records with a `name` these; None for another record,
    which no caption can use.
    """
    if isinstance(value, str) and not value.startswith("["):
        return value
    if is_caption_column(name):
        return next(iter(strings(value)), "")
    if isinstance(value, str):
        return as_text(listed(value) or _names_in(records_in(value)) or value)
    records = [value] if isinstance(value, dict) and is_art_column(name) else value
    if names := names_scored(value) or (_names_in(records) if isinstance(records, list) and records else []):
        return as_text(names)
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)):
        return None
    return as_text(value)


def names_scored(value: Any) -> list[str]:
    """The names in what a tagger writes: {"castle": 0.9}, or [["castle", 0.9]]; [] of anything else."""
    pairs = list(value.items()) if isinstance(value, dict) else value if isinstance(value, list) else []
    scored = all(isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_score(*pair) for pair in pairs)
    return [name for name, _ in pairs] if scored else []


def _is_score(name: Any, score: Any) -> bool:
    return isinstance(name, str) and isinstance(score, float) and 0 <= score <= 1


def _names_in(records: list[Any]) -> list[str]:
    """What records of people, titles or tags are called; [] where one has no name."""
    names = [next((item[key] for key in _CALLED if item.get(key)), None) for item in records if isinstance(item, dict)]
    return [str(name) for name in names] if len(names) == len(records) and all(map(_is_text, names)) else []


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, int))
