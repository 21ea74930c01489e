"""Joins tables of metadata with the pictures they name.

Which column names the picture is found by what its values name; `file_name` and its like go first. Several rows
of one picture are one picture with several captions. Where several tables describe a picture, the one deepest down
has the last word on each column.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.sources.described import Described, without_captions
from diffusion_art.sources.file_column import FILE_COLUMNS, SAMPLED_ROWS, FileColumns, name_in
from diffusion_art.sources.json_shapes import REJECTED, is_rejected
from diffusion_art.sources.listing import PICTURE_SUFFIXES, Listing, stem_of, suffix_of
from diffusion_art.sources.names import PictureNames, columns_of_folders
from diffusion_art.sources.splits import (
    NumberedSplits,
    column_of_splits,
    first_split,
    numbered_splits,
    split_of_file,
    split_of_folder,
)
from diffusion_art.sources.table import first_lines, read_table
from diffusion_art.sources.texts import overlaid, read_text

NO_PICTURE = "rows of metadata whose picture is not here"
SEVERAL = "rows whose picture cannot be told; name its folder too, or put the table into it"
OTHER_SUFFIX = "rows whose picture is here by another suffix (a.png for a.jpg), which was taken"
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
        self.seen: dict[str, None] = {}  # columns of tables that name no picture
        self.left_out: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.root, self._names, self._example = listing.root, names, ""
        self._file_column, self._delimiter = file_column, delimiter

    def finder(self, table: str) -> Callable[[str], bool]:
        """Tells whether a text in `table`, a path below the root, is the name of a picture."""
        folder = posixpath.dirname(table)
        return lambda text: self._names.named_exactly(text, folder) or self._names.by_stem(text, folder) is not None

    def read(self, table: str, *, strict: bool = False) -> None:
        """Add the rows of `table`. A `strict` one must name pictures, another may be about something else.

        Raises:
            UserError: a damaged table; of a strict one also a row that names no file, or one outside the folder.
        """
        path, folder = self.root / table, posixpath.dirname(table)
        notes: Counter[str] = Counter()
        read_rows = read_table(path, notes, is_picture=self.finder(table), delimiter=self._delimiter)
        by_folders = columns_of_folders(table)
        rows = [(line, {**by_folders, **row}) for line, row in read_rows] if by_folders else list(read_rows)
        if self._file_column and rows and not any(self._file_column in row for _, row in rows):
            names = ", ".join(dict.fromkeys(name for _, row in rows[:SAMPLED_ROWS] for name in row))
            raise UserError(f"{path} has no column `{self._file_column}`. Its columns: {names}.")
        columns = FileColumns(self._names, folder)
        column = self._file_column or columns.of_files(rows) or columns.of_lists(rows)
        if column is None and (own := self._own_folder(table)):
            folder, columns = own, FileColumns(self._names, own)
            column = columns.of_files(rows)
        column = column or columns.of_namesakes(rows)
        if column is None and not strict:
            self.left_out[NO_TABLE] += 1
            self.seen |= dict.fromkeys(name for _, row in rows[:SAMPLED_ROWS] for name in row)
            return
        rows = [(line, one) for line, row in rows for one in columns.one_a_picture(row, column)]
        alone, split, read = [row for _, row in rows], split_of_file(table), {}
        column_of_split, numbers = column_of_splits(alone), numbered_splits(alone)
        named_exactly = columns.pictures_named(rows, column)
        for line, row in rows:
            where = f"{path} line {line}"
            named = _file_named(row, column, where=where) if strict else name_in(row.get(column or ""))
            file = self._names.find(named, folder) if named else None
            if file is None and (like := self._names.by_stem(named, folder)) not in named_exactly:
                file = like
                notes[OTHER_SUFFIX] += like is not None
            if file is None:
                _refuse_outside(named, folder, where=where, strict=strict)
                namesakes = self._names.namesakes(named, folder)
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
            self._add_numbered(described, numbers, row)
        self.notes += notes
        self._merge(read)

    def _own_folder(self, table: str) -> str | None:
        """The one folder of pictures beside a table that has its name or split: `train/` for `captions_train.csv`."""
        folder = posixpath.dirname(table)
        found = [name for name in self._names.folders_in(folder) if _is_own(name, table)]
        return posixpath.join(folder, found[0]) if len(found) == 1 else None

    def _count_unknown(self, namesakes: list[str]) -> None:
        """A row whose picture is not here, or is one of `namesakes`; the first such row is the example."""
        if namesakes and not self._example:
            self._example = f"{namesakes[0]} or {namesakes[1]}"
        self.left_out[f"{SEVERAL} ({self._example})" if namesakes else NO_PICTURE] += 1

    def _add_numbered(self, described: Described, numbers: NumberedSplits, row: Mapping[str, Any]) -> None:
        if numbers.note:
            described.split = numbers.of(row) or described.split
            self.notes[numbers.note] += 1

    def read_partition(self, file: str) -> bool:
        """Whether `file` is CelebA's list of splits by their numbers: `000001.jpg 0`."""
        if "partition" not in posixpath.basename(file) and "split" not in posixpath.basename(file):
            return False
        lines = [line.split() for line in read_text(self.root / file).text.splitlines() if line.strip()]
        rows = [{"file_name": line[0], "partition": line[-1]} for line in lines if len(line) == 2]
        numbers, folder = numbered_splits(rows), posixpath.dirname(file)
        found = [(picture, row) for row in rows if (picture := self._names.find(row["file_name"], folder))]
        if not numbers.column or 2 * len(found) <= len(lines):
            return False
        for picture, row in found:
            self._add_numbered(self.described.setdefault(picture, Described()), numbers, row)
        return True

    def read_names(self, file: str) -> bool:
        """Whether `file` is a list of the pictures of a split, as `train.txt`: one a line, whatever follows it."""
        split, folder = split_of_file(file), posixpath.dirname(file)
        lines = [] if split is None else read_text(self.root / file).text.splitlines()
        named = [line for line in map(str.strip, lines) if line]
        found = {self._names.find(line, folder) or self._names.find(line.split()[0], folder) for line in named}
        found.discard(None)
        if split is None or 2 * len(found) <= len(named):
            return False
        for picture in found:
            described = self.described.setdefault(str(picture), Described())
            described.split_of_table = first_split((split, described.split_of_table))
        return True

    def read_pairs(self, file: str) -> bool:
        """Whether `file` is a list of pictures, a caption behind each: `a.jpg a red house`, or `a.jpg: a house`."""
        folder, path, finder = posixpath.dirname(file), self.root / file, self.finder(file)
        if not any(finder(name) for name, _ in map(_pair, first_lines(path))):
            return False
        lines = [_pair(line) for line in read_text(path).text.splitlines() if line.strip()]
        known = [(name, text) for name, text in lines if finder(name) and _is_caption(text)]
        if 2 * len(known) <= len(lines):
            return False
        read: dict[str, Described] = {}
        for name, text in known:
            picture = str(self._names.find(name, folder))
            described = read.setdefault(picture, Described(split_of_table=split_of_file(file)))
            described.add({"caption": text}, None)
        self.left_out[NO_PICTURE] += len(lines) - len(known)
        self._merge(read)
        return True

    def _merge(self, read: Mapping[str, Described]) -> None:
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


def _pair(line: str) -> tuple[str, str]:
    """The first word of a line, and what is behind it."""
    name, _, text = line.strip().partition(" ")
    return name.rstrip(":"), text.strip()


def _is_caption(text: str) -> bool:
    """Whether it has letters, and is no second file."""
    return any(map(str.isalpha, text)) and suffix_of(text) not in PICTURE_SUFFIXES


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
