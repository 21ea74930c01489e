"""Tables that name no picture, and tell of what other tables say of pictures by its number.

published_images.csv  uuid, depictstmsobjectid     objects.csv  objectid, title, ...     the National Gallery of Art
train.csv             id, attribute_ids ("1 3")    labels.csv   attribute_id, name      iMet
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from diffusion_art.captions.columns import is_art_column, plain_name
from diffusion_art.sources.paths.suffixes import stem_of
from diffusion_art.sources.tables.delimited import Row
from diffusion_art.sources.tables.described import Described
from diffusion_art.sources.tables.texts import as_text

_ID = re.compile(r".*(?:id|uuid|key|number|code)")
_BARE = ("id", "uuid", "key", "number", "code")
_NAMES = ("name", "title", "label", "displayname", "fullname")
_CUT = re.compile(r"[\s,;|]+")  # between several numbers
_KNOWN = 0.9  # of the numbers: those that the other table has


def joined(table: str, rows: list[Row], described: Mapping[str, Described]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(picture, what the `rows` of `table` say of it), where a column of theirs has the numbers in a column of pictures
    `described`, and nearly its name: `objectid` for `depictstmsobjectid`, `attribute_id` for `attribute_ids`, and the
    `id` of `artists.csv` for `artist_id`.
    """
    columns = dict.fromkeys(name for known in described.values() for name in known.columns)
    for key in dict.fromkeys(name for _, row in rows[:1] for name in row if _ID.fullmatch(plain_name(name))):
        about = plain_name(posixpath.basename(stem_of(table))).removesuffix("s")
        wanted = about * (plain_name(key) in _BARE) + plain_name(key)
        for column in (name for name in columns if plain_name(name).removesuffix("s").endswith(wanted)):
            found = {str(row.get(key)): row for _, row in rows}
            numbers = {file: _numbers(known.columns.get(column, "")) for file, known in described.items()}
            told = [number for some in numbers.values() for number in some]
            if len(found) == len(rows) and told and sum(n in found for n in told) >= _KNOWN * len(told):
                for file, some in numbers.items():
                    known = [found[number] for number in some if number in found]
                    yield file, _together(known, key, wanted.removesuffix("id"))
                return


def _numbers(text: str) -> list[str]:
    return [number for number in _CUT.split(text) if number]


def _together(rows: list[dict[str, Any]], key: str, about: str) -> dict[str, Any]:
    """One row of several. A `name` is that of what they are `about`, an artist or a style; others are labels."""
    names = [name for name in rows[0] if name != key] if rows else []
    whole = {name: rows[0][name] for name in names} if len(rows) == 1 else {}
    name = next((name for name in names if plain_name(name) in _NAMES), None)
    if name and is_art_column(about):
        whole.pop(name, None)
        return {about: as_text([row[name] for row in rows]), **whole}
    return {"labels": as_text([row[names[0]] for row in rows])} if len(names) == 1 else whole
