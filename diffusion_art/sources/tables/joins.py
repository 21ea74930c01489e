"""Tables that name no picture, and tell of what other tables say of pictures by its number.

published_images.csv  uuid, depictstmsobjectid     objects.csv  objectid, title, ...     the National Gallery of Art
train.csv             id, attribute_ids ("1 3")    labels.csv   attribute_id, name      iMet

Rows of a table of paintings tell all that they hold. Of artists and styles the name counts, not when they were born,
and of what else has a number (museums, licences, sales, reviews) nothing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from diffusion_art.captions.columns import as_text, caption_columns, is_art_column, plain_name
from diffusion_art.sources.paths.listing import stem_of
from diffusion_art.sources.tables.delimited import Row
from diffusion_art.sources.tables.texts import Described

_ID = re.compile(r".*(?:id|uuid|key|number|code)")
_NUMBER = re.compile(r"(?:uuid|id|key|number|code)$")
_BARE = ("id", "uuid", "key", "number", "code")
_NAMES = ("name", "title", "label", "displayname", "fullname")
_SHOWN = r"objects?|(?:art)?works?|paintings?|pictures?|images?|photos?|prints?|drawings?|items?|records?"
_OF_OBJECT = re.compile(rf".*(?:{_SHOWN}|accession|inventory)")  # what a number is of
_OF_OBJECTS = re.compile(rf"(?:.*[_ -])?(?:{_SHOWN}|captions?|descriptions?|metadata|catalogu?e?|collection)[_ \d-]*")
_LABEL = re.compile(r".*(?:attribute|tag|label|class|category|keyword|subject|theme|concept|motif)")
_CUT = re.compile(r"[\s,;|]+")  # between several numbers
_KNOWN = 0.9  # of the numbers: those that the other table has


def joined(table: str, rows: list[Row], described: Mapping[str, Described]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(picture, what the `rows` of `table` say of it), where a column of theirs has the numbers in a column of pictures
    `described`, and nearly its name: `objectid` for `depictstmsobjectid`, `attribute_id` for `attribute_ids`, and the
    `id` of `artists.csv` for `artist_id`.
    """
    columns = dict.fromkeys(name for known in described.values() for name in known.columns)
    called = posixpath.basename(stem_of(table)).lower()
    for key in dict.fromkeys(name for _, row in rows[:1] for name in row if _ID.fullmatch(plain_name(name))):
        wanted = plain_name(called).removesuffix("s") * (plain_name(key) in _BARE) + plain_name(key)
        about = _NUMBER.sub("", wanted)
        found = {str(row.get(key)): row for _, row in rows}
        if len(found) < len(rows):  # no key: several rows have one number
            continue
        for column in (name for name in columns if plain_name(name).removesuffix("s").endswith(wanted)):
            numbers = {file: _numbers(known.columns.get(column, "")) for file, known in described.items()}
            told = [number for some in numbers.values() for number in some]
            if told and sum(n in found for n in told) >= _KNOWN * len(told):
                whole = bool(_OF_OBJECT.fullmatch(about) and _OF_OBJECTS.fullmatch(called))
                for file, some in numbers.items():
                    known = [found[number] for number in some if number in found]
                    yield file, known[0] if whole and len(known) == 1 else _named(known, key, about)
                return


def _numbers(text: str) -> list[str]:
    return [number for number in _CUT.split(text) if number]


def _named(rows: list[dict[str, Any]], key: str, about: str) -> dict[str, Any]:
    """The names in rows about an artist, a style or labels, with the style and genre of one artist; {} of others."""
    names = [name for name in rows[0] if name != key] if rows else []
    called = [name for name in names if plain_name(name) in (*_NAMES, about)] or names[: len(names) == 1]
    if not called or not (is_art_column(about) or _LABEL.fullmatch(about)):
        return {}
    told = as_text([row[called[0]] for row in rows])
    if not is_art_column(about):
        return {"labels": told}
    more = {name: rows[0][name] for name in caption_columns(names).subject if plain_name(name) not in _NAMES}
    return {**more, about: told} if len(rows) == 1 else {about: told}
