"""Joins tables of metadata with the pictures they name.

Which column names the picture is found by what its values name; `file_name` and its like go first. Several rows
of one picture are one picture with several captions. Where several tables describe a picture, the one deepest down
has the last word on each column.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

from diffusion_art.captions.columns import caption_columns, plain_name
from diffusion_art.errors import UserError
from diffusion_art.sources.paths.listing import TEXT_SUFFIXES, Listing, grouped, stem_of, suffix_of
from diffusion_art.sources.paths.names import PictureNames, columns_of_folders
from diffusion_art.sources.paths.splits import (
    NumberedSplits,
    column_of_splits,
    first_split,
    numbered_splits,
    split_of_file,
    split_of_folder,
)
from diffusion_art.sources.programs.annotators import of_one_hot, of_via_csv
from diffusion_art.sources.programs.exports import of_exiftool
from diffusion_art.sources.tables.delimited import Row
from diffusion_art.sources.tables.file_column import FILE_COLUMNS, SAMPLED_ROWS, FileColumns, name_in, names_within
from diffusion_art.sources.tables.joins import joined
from diffusion_art.sources.tables.json_shapes import REJECTED, is_rejected
from diffusion_art.sources.tables.table import read_table, record_in
from diffusion_art.sources.tables.texts import Decoded, Described, alternatives, overlaid, read_text, without_captions

NO_PICTURE = "rows of metadata whose picture is not here"
SEVERAL = "rows whose picture cannot be told; name its folder too, or put the table into it"
OTHER_SUFFIX = "rows whose picture is here by another suffix (a.png for a.jpg), which was taken"
RECORD = "record"  # the column of the name of a file with one record
ORPHAN_TEXTS = "texts that belong to no picture"
OF_CAPTIONS = re.compile(r"captions?|prompts?|texts?|descriptions?")  # the name of a file
NO_TABLE = "files that look like metadata and name no picture here"


class Metadata:
    """Reads tables below a root: `described` by picture, `columns` in the order they came.

    `left_out` counts what is of no use, `notes` what was odd about rows that are used.
    """

    def __init__(
        self, listing: Listing, names: PictureNames, *, file_column: str | None = None, delimiter: str | None = None
    ) -> None:
        self.described: dict[str, Described] = {}
        self.columns: dict[str, None] = {}
        self.companions: set[str] = set()  # pictures in other columns of tables that describe those in one
        self.seen: dict[str, None] = {}  # columns of tables that name no picture
        self.others: list[str] = []  # those tables
        self.left_out: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.root, self.names, self._example = listing.root, names, ""
        self._file_column, self._delimiter = file_column, delimiter

    def finder(self, table: str) -> Callable[[str], bool]:
        """Tells whether a text in `table`, a path below the root, is the name of a picture."""
        folder = posixpath.dirname(table)
        return lambda text: self.names.named_exactly(text, folder) or self.names.by_stem(text, folder) is not None

    def read(self, table: str, *, strict: bool = False, text: Decoded | None = None) -> bool:
        """Whether the rows of `table` name pictures; what they say of these is kept. A `strict` one must name some,
        another may be about something else. `text` is what it holds, where it is no file of its own.

        Raises:
            UserError: a damaged table; of a strict one also a row that names no file, or one outside the folder.
        """
        path = self.root / table
        notes: Counter[str] = Counter()
        finder = self.finder(table)
        read_rows = list(read_table(path, notes, is_picture=finder, delimiter=self._delimiter, text=text))
        by_folders = columns_of_folders(table)
        plain = of_one_hot([{**by_folders, **of_exiftool(of_via_csv(row))} for _, row in read_rows])
        rows = [(line, row) for (line, _), row in zip(read_rows, plain)]
        if self._file_column and rows and not any(self._file_column in row for _, row in rows):
            names = ", ".join(dict.fromkeys(name for _, row in rows[:SAMPLED_ROWS] for name in row))
            raise UserError(f"{path} has no column `{self._file_column}`. Its columns: {names}.")
        found = self._join(rows, table, notes, strict=strict)
        if not found and not strict:
            self.left_out[NO_TABLE] += 1
            self.others.append(table)
            self.seen |= dict.fromkeys(name for _, row in rows[:SAMPLED_ROWS] for name in row)
        return found

    def has_numbers_of(self, classes: Mapping[str, Mapping[str, str]]) -> bool:
        """Whether a picture has the number of one of the `classes`, {column: {number: name}}."""
        cells = (cell for known in self.described.values() for cell in known.columns.items())
        return any(text in classes.get(plain_name(column), ()) for column, text in cells)

    def read_joined(self) -> None:
        """Tables that name no picture, and what they say by the numbers in those that do."""
        for table in self.others if self.described else ():
            rows = list(read_table(self.root / table, Counter(), is_picture=lambda _: False))
            found = {file: row for file, row in joined(table, rows, self.described) if row}
            self.left_out[NO_TABLE] -= bool(found)
            for file, row in found.items():
                known = self.described[file].columns
                self.tell([(file, {name: value for name, value in row.items() if not known.get(name)})])

    def read_records(self, folder: str, files: Sequence[str], *, but: Container[str | None]) -> bool:
        """Whether files that `read` found no picture in, each with one record (JSON or XML), are a table together.
        Where no column names pictures, the names of the files do, but of those `but` that have JSON beside them. One
        that lists pictures is about none of them.
        """
        records = [(number, record) for number, file in enumerate(files) if (record := record_in(self.root / file))]
        records = [(number, record) for number, record in records if not _lists_pictures(record)]
        stems = {number: stem_of(posixpath.basename(files[number])) for number, _ in records}
        others = [(number, row) for number, row in records if self.names.find(stems[number], folder) not in but]
        named = [(number, {**row, RECORD: stems[number]}) for number, row in others]
        table = f"{folder}/"
        found = self._join(records, table, Counter()) or self._join(named, table, Counter(), column=RECORD)
        self.left_out[NO_TABLE] -= len(records) * found
        return found

    def read_alone(self, files: Sequence[str]) -> None:
        """Files of one name in several folders, `caption.txt` or `info.json`, each of the one picture of its folder."""
        lone = {file: picture for file in files if (picture := self.names.one_in(posixpath.dirname(file)))}
        for alike in grouped((posixpath.basename(file), file) for file in lone).values():
            for file in alike if len(alike) > 1 else ():
                path, text = self.root / file, suffix_of(file) in TEXT_SUFFIXES
                row = {"captions": alternatives(read_text(path).text)} if text else record_in(path)
                if (not text or OF_CAPTIONS.fullmatch(posixpath.basename(stem_of(file)))) and any(caption_columns(row)):
                    self.left_out[ORPHAN_TEXTS if text else NO_TABLE] -= 1
                    self.tell([(lone[file], row)])

    def told_apart(self, copies: Mapping[str, str]) -> set[str]:
        """Those of {copy: picture} that tables tell otherwise of. What they say of copies alone is of the pictures."""
        told = {copy: self.described[copy] for copy in copies if copy in self.described}
        for copy, said in told.items():
            if copies[copy] not in self.described:
                self.merge({copies[copy]: self.described.pop(copy)})
            elif said == self.described[copies[copy]]:
                del self.described[copy]
        return told.keys() & self.described.keys()

    def _join(
        self, rows: list[Row], table: str, notes: Counter[str], *, strict: bool = False, column: str | None = None
    ) -> bool:
        """Whether a column of `rows`, or the given one, names pictures, which are then described by them."""
        path, folder = self.root / table, posixpath.dirname(table)
        columns = FileColumns(self.names, folder)
        if column is not None:
            column = column if columns.pictures_named(rows, column) else None
        else:
            column = self._file_column or columns.of_files(rows) or columns.of_lists(rows)
            if column is None and (own := self._own_folder(table)):
                folder, columns = own, FileColumns(self.names, own)
                column = columns.of_files(rows)
            column = column or columns.of_namesakes(rows)
            if column is None:
                column, rows = columns.of_records(rows)
        if column is None and not strict:
            return False
        rows = [(line, one) for line, row in rows for one in columns.one_a_picture(row, column)]
        alone, split, read = [row for _, row in rows], split_of_file(table), {}
        column_of_split, numbers = column_of_splits(alone), numbered_splits(alone)
        named_exactly = columns.pictures_named(rows, column)
        for line, row in rows:
            where = f"{path} line {line}"
            named = _file_named(row, column, where=where) if strict else name_in(row.get(column or ""))
            file = self.names.find(named, folder) if named else None
            if file is None and (like := self.names.by_stem(named, folder)) not in named_exactly:
                file = like
                notes[OTHER_SUFFIX] += like is not None
            if file is None:
                _refuse_outside(named, folder, where=where, strict=strict)
                namesakes = self.names.namesakes(named, folder)
                file = _in_own_folder(namesakes, table)
                if file is None:
                    self._count_unknown(namesakes)
                    continue
            described = read.setdefault(file, Described(split_of_table=split))
            if is_rejected(row):
                notes[REJECTED] += 1
                row = without_captions(row)
            described.add(row, column)
            if column_of_split:
                described.split = split_of_folder(str(row.get(column_of_split, ""))) or described.split
            self.add_numbered(described, numbers, row)
        self.notes += notes
        if any(caption_columns({name for row in alone[:SAMPLED_ROWS] for name in row if name != column})):
            self.companions |= columns.companions(rows, column)
        self.merge(read)
        return True

    def add_numbered(self, described: Described, numbers: NumberedSplits, row: Mapping[str, Any]) -> None:
        """What numbers say of a picture's split."""
        if numbers.note:
            described.split = numbers.of(row) or described.split
            self.notes[numbers.note] += 1

    def _own_folder(self, table: str) -> str | None:
        """The one folder of pictures beside a table that has its name or split: `train/` for `captions_train.csv`."""
        folder = posixpath.dirname(table)
        found = [name for name in self.names.folders_in(folder) if _is_own(name, table)]
        return posixpath.join(folder, found[0]) if len(found) == 1 else None

    def _count_unknown(self, namesakes: list[str]) -> None:
        """A row whose picture is not here, or is one of `namesakes`; the first such row is the example."""
        if namesakes and not self._example:
            self._example = f"{namesakes[0]} or {namesakes[1]}"
        self.left_out[f"{SEVERAL} ({self._example})" if namesakes else NO_PICTURE] += 1

    def tell(self, rows: Iterable[tuple[str, dict[str, Any]]], *, split_of_table: str | None = None) -> None:
        """Add what the rows of one more table, given as (picture, row), say."""
        read: dict[str, Described] = {}
        for picture, row in rows:
            read.setdefault(picture, Described(split_of_table=split_of_table)).add(row, None)
        self.merge(read)

    def merge(self, read: Mapping[str, Described]) -> None:
        """Add what one more table says of its pictures."""
        for file, new in read.items():
            old = self.described.setdefault(file, Described())
            filled = {name: text for name, text in new.columns.items() if text or name not in old.columns}
            old.columns = overlaid(old.columns, filled)
            old.captions = new.captions or old.captions
            old.split = new.split or old.split
            old.split_of_table = first_split((new.split_of_table, old.split_of_table))
            self.columns |= dict.fromkeys(new.columns)


def is_strict(table: str) -> bool:
    """Whether a table is metadata by Hugging Face's convention: `metadata.csv` and its like."""
    base = posixpath.basename(table)
    return base.removesuffix(suffix_of(base)).lower() == "metadata"


def _in_own_folder(files: list[str], table: str) -> str | None:
    """The one of `files` in the folder beside a table that has its name or split."""
    folder = posixpath.dirname(table)
    start = f"{folder}/" if folder else ""
    inside = [file for file in files if file.startswith(start)]
    found = [file for file in inside if _is_own(file[len(start) :].partition("/")[0], table)]
    return found[0] if len(found) == 1 else None


def _is_own(folder: str, table: str) -> bool:
    split = split_of_file(table)
    return folder == posixpath.basename(stem_of(table)) or (split is not None and split_of_folder(folder) == split)


def _lists_pictures(record: Mapping[str, Any]) -> bool:
    """Whether a record names several pictures in one place, and is no painting with several: COCO's `images`."""
    several = any(len(set(names)) > 1 for names in grouped(names_within(record)).values())
    return several and not caption_columns(record).art


def _file_named(row: dict[str, Any], column: str | None, *, where: str) -> str:
    name = name_in(row.get(column or ""))
    name = name or next((found for other in FILE_COLUMNS if (found := name_in(row.get(other)))), "")
    if not name:
        raise UserError(f"{where} has no `file_name`. Name a picture relative to that file.")
    return name


def _refuse_outside(name: str, folder: str, *, where: str, strict: bool) -> None:
    place = posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))
    if strict and (place == ".." or place.startswith(("/", "../"))):
        raise UserError(f"{where} names the file {name!r}, outside the folder. Name a picture relative to that file.")
