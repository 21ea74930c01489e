"""Which column of a table names its pictures: the one whose values do so in fact; `file_name` and its like go first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from diffusion_art.captions.columns import listed
from diffusion_art.sources.paths.listing import PICTURE_SUFFIXES, grouped, suffix_of
from diffusion_art.sources.paths.names import PictureNames, others_are_made_from
from diffusion_art.sources.tables.delimited import Row

FILE_COLUMNS = ("file_name", "filename", "file", "file_path", "filepath", "path", "image_path", "image_file", "image")

SAMPLED_ROWS = 500
_ID = re.compile(r"(?:object|image|picture|photo|art|artwork|work|item|record|asset|omni|oms)?(?:id|uuid|key|number)")
_FURTHER = re.compile(r"(?:additional|further)[_ ]?(?:image|picture|photo|view)", re.IGNORECASE)
_LINK_BEHIND = re.compile(r" \(https?://[^()\s]*\)")  # Airtable's `a.jpg (https://...)`
_IN_ROWS = 0.9  # of the rows of a table: those in which such a column names a picture
_NAMED = 0.8  # of the pictures
_SCATTERED = 3  # times as many as there are pictures: the largest of their numbers
_MARKS = re.compile(r"\s*[;,|]\s*")  # between the names of several pictures


class FileColumns:
    """Looks for that column in the rows of a table which lies in `folder`."""

    def __init__(self, names: PictureNames, folder: str) -> None:
        self._names, self._folder = names, folder

    def of_files(self, rows: list[Row]) -> str | None:
        """The conventional column, or the one most values of which name pictures; None where there is none."""
        sample = _sample(rows)
        names = {name.lower(): name for row in sample for name in row}
        usual = [names[name] for name in FILE_COLUMNS if name in names]
        columns = (*usual, *(name for name in names.values() if name not in usual))
        if not columns:
            return None
        exact = {name: len(self._hits(sample, name, exact=True)) for name in columns}
        best = max(columns, key=lambda name: (exact[name], not others_are_made_from(name)))
        if exact[best]:
            return next((name for name in usual if exact[name]), best)
        like = {name: self._like(sample, name) for name in columns}
        best = max(columns, key=like.__getitem__)
        if 2 * like[best] > len(sample):
            return best
        # Names without a suffix, or numbers, are believed only where they name a picture in most rows.
        bare = {name: self._hits(sample, name, exact=False) for name in columns}
        best = max(columns, key=lambda name: len(set(bare[name])))
        if 2 * len(bare[best]) <= len(sample):
            return self._of_numbers(rows, columns)
        # The numbers of a few classes name as few pictures.
        return best if 10 * len(set(bare[best])) > min(len(sample), len(self._names)) else None

    def _of_numbers(self, rows: list[Row], columns: tuple[str, ...]) -> str | None:
        """The column called an id that names nearly all pictures here, each in one row: the dump of a museum, of which
        few pictures were downloaded. Pictures that are just numbered from 1 are no such few.
        """
        for column in (name for name in columns if _ID.fullmatch(re.sub(r"[\s_-]", "", name.lower()))):
            named = [row for _, row in rows if self._hits([row], column, exact=False)]
            hits = Counter(self._hits(named, column, exact=False))
            ids = (name_in(row[column]) for row in named)
            largest = max((int(name) for name in ids if name.isdecimal() and len(name) < 20), default=0)
            few = not largest or largest > _SCATTERED * len(self._names)
            if few and _NAMED * len(self._names) <= len(hits) == hits.total():
                return column
        return None

    def of_namesakes(self, rows: list[Row]) -> str | None:
        """The column, most values of which name several pictures."""
        sample = _sample(rows)
        names = list(sample[0]) if sample else []
        several = {
            name: [row for row in sample if self._names.namesakes(name_in(row.get(name)), self._folder)]
            for name in names
        }
        return next((name for name, found in several.items() if 2 * len(found) > len(sample)), None)

    def of_lists(self, rows: list[Row]) -> str | None:
        """The first column whose lists name pictures, as `file_names`."""
        sample = _sample(rows)
        names = dict.fromkeys(name for row in sample for name in row)
        return next((name for name in names if any(self._listed(row.get(name)) for row in sample)), None)

    def of_records(self, rows: list[Row]) -> tuple[str | None, list[Row]]:
        """The column that lies in records within the rows, as `images.web.filename`, and the rows with it."""
        within = [grouped(names_within(row)) for _, row in rows]
        firsts = [(line, {place: found[0] for place, found in names.items()}) for (line, _), names in zip(rows, within)]
        if (column := self.of_files(firsts)) is None:
            return None, rows
        return column, [(line, {**row, column: names.get(column)}) for (line, row), names in zip(rows, within)]

    def one_a_picture(self, row: dict[str, Any], column: str | None) -> list[dict[str, Any]]:
        """The row for each of the pictures that it lists, in `additionalImages` too, or as it is."""
        if column is None:
            return [row]
        names: list[Any] = self._listed(row.get(column)) or [row.get(column)]
        lists = (value for name, value in row.items() if name != column and _FURTHER.match(name))
        names += [name for value in lists for name in self._listed(value) if name not in names]
        return [{**row, column: name} for name in names]

    def _listed(self, value: Any) -> list[str]:
        """The names in a list, also one that is written out, or cut by marks (`a.jpg;b.jpg`); [] where none is one of
        a picture.
        """
        if isinstance(value, str):
            value = listed(value) or ([] if self._names.find(value, self._folder) else _cut(value))
        names = [name for item in value if (name := name_in(item))] if isinstance(value, list) else []
        return names if any(self._names.named_exactly(name, self._folder) for name in names) else []

    def pictures_named(self, rows: list[Row], column: str | None) -> set[str | None]:
        return {self._names.find(name, self._folder) for _, row in rows if (name := name_in(row.get(column or "")))} - {
            None
        }

    def companions(self, rows: list[Row], column: str | None) -> set[str]:
        """The pictures that other columns name, row by row: what others were made from, or masks of them."""
        sample = _sample(rows)
        names = dict.fromkeys(name for row in sample for name in row if name != column)
        others = [name for name in names if _IN_ROWS * len(sample) <= len(self._hits(sample, name, exact=True))]
        found = {file for name in others for file in self._hits([row for _, row in rows], name, exact=True)}
        return found - {file for file in self.pictures_named(rows, column) if file}

    def _hits(self, rows: list[dict[str, Any]], column: str, *, exact: bool) -> list[str]:
        """The pictures that a column names, row by row."""
        named = [name for row in rows if (name := name_in(row.get(column)))]
        sure = [name for name in named if not exact or self._names.named_exactly(name, self._folder)]
        return [file for name in sure if (file := self._names.find(name, self._folder))]

    def _like(self, rows: list[dict[str, Any]], column: str) -> int:
        """How many pictures a column names but for the suffix."""
        return sum(self._names.by_stem(name_in(row.get(column)), self._folder) is not None for row in rows)


def _sample(rows: list[Row]) -> list[dict[str, Any]]:
    """Some of the rows, from all over the table."""
    return [row for _, row in rows[:: max(1, len(rows) // SAMPLED_ROWS)]]


def names_within(value: Any, place: str = "", levels: int = 6) -> Iterator[tuple[str, str]]:
    """Places, at most so deep in a value, and the names of pictures that stand there."""
    if isinstance(value, list) and levels > 0:
        for inner in value:
            yield from names_within(inner, place, levels - 1)
    elif isinstance(value, dict) and levels > 0:
        for name, inner in value.items():
            yield from names_within(inner, f"{place}.{name}" if place else name, levels - 1)
    elif "." in place and isinstance(value, str) and suffix_of(value.partition("?")[0]) in PICTURE_SUFFIXES:
        yield place, value


def name_in(value: Any) -> str:
    """What a cell names: text, a number, or the `path` of a record."""
    if isinstance(value, dict):
        value = value.get("path")
    return _LINK_BEHIND.sub("", str(value)) if isinstance(value, (str, int)) else ""


def _cut(text: str) -> list[str]:
    """The names of several pictures in one cell; [] where it holds anything else."""
    parts = _MARKS.split(text)
    return parts if len(parts) > 1 and all(suffix_of(part) in PICTURE_SUFFIXES for part in parts) else []
