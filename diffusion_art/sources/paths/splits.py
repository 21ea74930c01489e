"""Which split a picture belongs to, where the names of files, folders or a table's column say so.

    train/a.jpg   train2017/a.jpg   validation-00000.tar   semart_test.csv   {"split": "restval"}   test_01.jpg
    trainA/a.jpg and testA/b.jpg, or monet_train/a.jpg and monet_test/b.jpg: names that differ in that word alone
    {"partition": 2}   {"is_train": 0}   numbers, as CelebA has them, and flags

A named validation split is the validation split; pictures of a test split are never trained on. Names divide a
collection only where they name a part to train on and another one: a folder with nothing but `train-*.parquet`, or
nothing but `test/`, is one undivided collection.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TEST_SPLIT = "pictures of a test split"

SPLIT_COLUMNS = ("split", "subset", "partition", "set", "data_split", "dataset_split")  # in any case

_TRAIN, _VAL, _TEST = "train", "val", "test"
_WORDS = {
    **dict.fromkeys(("train", "training", "trainval", "restval", "trn"), _TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), _VAL),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), _TEST),
}
_FILLERS = {"set", "split", "data", "image", "images", "img", "imgs", "pictures", "partial", "of", ""}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # `trainImages` has two
_PREFIX = re.compile(r"([a-z]+)[_-]")
_FLAG = re.compile(r"(?:is|in)(?!_?valid$)(.+)")  # `is_valid` may also tell of pictures that are whole
_TRUTHS = {"true": "1", "false": "0", "yes": "1", "no": "0", "nan": ""}
_NUMBERS = {"0": _TRAIN, "1": _VAL, "2": _TEST}  # CelebA's


def split_in_row(row: Mapping[str, Any]) -> str | None:
    """What a row of a table says, in the column that is there for it."""
    name = split_column(row)
    return split_of_folder(str(row[name])) if name else None


def split_column(columns: Iterable[str]) -> str | None:
    """The column that may name splits, None without one."""
    found = {name.strip().lower().replace(" ", "_"): name for name in columns}
    return next((found[name] for name in SPLIT_COLUMNS if name in found), None)


def column_of_splits(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The column all of whose cells name splits, and not all the same one, as `phase`; None without one, and
    where a column is called so.
    """
    names = list(rows[0]) if rows else []
    if split_column(names):
        return None
    return next((name for name in names if {_TRAIN} < _splits_in_all(rows, name)), None)


def _splits_in_all(rows: Sequence[Mapping[str, Any]], column: str) -> set[str]:
    found = set()
    for row in rows:
        if (split := split_of_folder(str(row.get(column, "")))) is None:
            return set()
        found.add(split)
    return found


@dataclass(frozen=True)
class NumberedSplits:
    """What numbers in a table say of splits: those of CelebA in `column`, or `flags`, each with the split of the rows
    in which it is 1. `unclear` is a column of splits whose numbers say nothing.
    """

    column: str = ""
    flags: tuple[tuple[str, str], ...] = ()
    unclear: str = ""

    def of(self, row: Mapping[str, Any]) -> str | None:
        """A row that is not flagged for training is a test picture, where such a flag is there."""
        if self.column:
            return _NUMBERS.get(_number(row.get(self.column)))
        cells = {split: _number(row.get(name)) for name, split in self.flags}
        if not any(cells.values()):
            return None
        said = {split for split, cell in cells.items() if cell == "1"}
        return first_split(said) or (_TEST if _TRAIN in cells else _TRAIN)

    @property
    def note(self) -> str:
        """What a build should say of it; "" where there are no such numbers."""
        if self.column:
            return f"rows whose `{self.column}` is a number, read as 0 train, 1 val, 2 test"
        if self.flags:
            flags = ", ".join(f"`{name}`" for name, _ in self.flags)
            return f"rows whose split was read from the flag{'s' * (len(self.flags) > 1)} {flags}"
        if self.unclear:
            return f"rows whose `{self.unclear}` is a number that says no split; write train, val or test there"
        return ""


NO_NUMBERS = NumberedSplits()


def numbered_splits(rows: Sequence[Mapping[str, Any]]) -> NumberedSplits:
    """From all rows of a table. Nothing where a column of splits holds words."""
    names = list(max(rows, key=len, default={}))
    column = split_column(names)
    cells = {_number(row.get(column)) for row in rows} - {""} if column else set()
    if column and not all(map(str.isdecimal, cells)):
        return NO_NUMBERS
    if column and {"0", "2"} <= cells <= _NUMBERS.keys():
        return NumberedSplits(column)
    told = {name: split for name in names if (split := split_of_flag(name))}
    cells_of = {name: {_number(row.get(name)) for row in rows} for name in told}
    flags = tuple((name, told[name]) for name, found in cells_of.items() if {""} < found | {""} <= {"0", "1", ""})
    return NumberedSplits(flags=flags, unclear=column if column and len(cells) > 1 and not flags else "")


def split_of_flag(column: str) -> str | None:
    """The split of rows in which `column` is true: of `is_train`, `is_training_image` and the like."""
    flag = _FLAG.fullmatch(column.strip().lower())
    return split_of_folder(flag[1]) if flag else None


def _number(cell: Any) -> str:
    """A cell as the digits it stands for; other text as it is, "" for nothing."""
    text = "" if cell is None else str(cell).strip().lower().removesuffix(".0")
    return _TRUTHS.get(text, text)


def split_of_file(name: str) -> str | None:
    """Of a file that holds many samples, by the words in its name: `train-00000-of-00004.parquet`."""
    return _split_within(name[name.rfind("/") + 1 :])[0]


def split_of_folder(name: str) -> str | None:
    """Of one folder, or a cell of a table, that says nothing else: `train2017`, `test_set`."""
    split, rest = _split_within(name)
    return split if all(word.lower() in _FILLERS for word in _WORD.findall(rest)) else None


def splits_of_prefixes(files: Iterable[str]) -> dict[str, str]:
    """{picture: its split} where the name of every picture begins with one: `test_01.jpg`; else nothing."""
    found = {}
    for file in files:
        prefix = _PREFIX.match(file[file.rfind("/") + 1 :].lower())
        if prefix is None or (split := _WORDS.get(prefix[1])) is None:
            return {}
        found[file] = split
    return found


def first_split(splits: Collection[str | None]) -> str | None:
    """`test` before `val` before `train`, so that nothing is trained on that something else says not to."""
    return next((split for split in (_TEST, _VAL, _TRAIN) if split in splits), None)


def agreed(*, row: str | None, folder: str | None, table: str | None) -> str | None:
    """The split of a picture by its row, by its folder and by the name of its table, of which the surest counts.

    But what one of the first two calls a test picture is one. Karpathy's rows divide the folder `val2014`.
    """
    return _TEST if _TEST in (row, folder) else row or folder or table


class FolderSplits:
    """The split of each folder of a collection, by the names above it. `files` are posix paths.

    A folder `train` beside folders of other names, none of them a split, is a class of vehicles.
    """

    def __init__(self, files: Iterable[str]) -> None:
        folders = {file[: file.rfind("/") + 1] for file in files}
        children: dict[str, set[str]] = defaultdict(set)
        for folder in folders:
            parts = folder.split("/")[:-1]
            for depth, part in enumerate(parts):
                children["/".join(parts[:depth])].add(part)
        self._named = {
            f"{parent}/{name}" if parent else name: split
            for parent, names in children.items()
            for name, split in _divided(names).items()
        }
        self._known: dict[str, str | None] = {}

    def of(self, file: str) -> str | None:
        """Where folders within each other are named for splits, the first of them counts."""
        folder = file[: file.rfind("/") + 1].rstrip("/")
        if folder not in self._known:
            parts = folder.split("/")
            found = {self._named.get("/".join(parts[: depth + 1])) for depth in range(len(parts))}
            self._known[folder] = first_split(found)
        return self._known[folder]

    def names(self, folder: str) -> bool:
        """Whether a folder, given by its path, is there for its split."""
        return folder in self._named


def divide(named: Mapping[str, str | None]) -> dict[str, str | None]:
    """{picture or file: the split its names say} -> {...: "train", "val", "test", or None where a hash decides}."""
    splits = set(named.values())
    if not splits & {_TRAIN, None} or not splits & {_VAL, _TEST}:
        return dict.fromkeys(named)
    rest = _TRAIN if _VAL in splits else None
    return {name: split if split in (_VAL, _TEST) else rest for name, split in named.items()}


def splits_of_files(names: Mapping[str, str]) -> dict[str, str | None]:
    """{file: split} of {file: its path below the collection}, for files that hold many samples."""
    folders = FolderSplits(names.values())
    return divide({file: split_of_file(name) or folders.of(name) for file, name in names.items()})


def _divided(names: Iterable[str]) -> dict[str, str]:
    names = set(names)
    found = {name: split for name in names if (split := split_of_folder(name))}
    if set(found.values()) == {_TRAIN} and len(found) < len(names):
        found = {}
    alike: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        split, rest = _split_within(name)
        if split:
            alike[rest.lower()][name] = split
    for group in alike.values():
        found |= group if len(set(group.values())) > 1 else {}
    return found


def _split_within(name: str) -> tuple[str | None, str]:
    """The split that one word of a name says, and the rest of the name; None where none or several do."""
    found = {split for word in _WORD.findall(name) if (split := _split_of_word(word))}
    if len(found) != 1:
        return None, name
    return found.pop(), _WORD.sub(lambda word: "" if _split_of_word(word[0]) else word[0], name)


def _split_of_word(word: str) -> str | None:
    """Of `train`, and of `trainset`."""
    word = word.lower()
    return _WORDS.get(word) or _WORDS.get(re.sub("(set|split|data|images?|imgs?)$", "", word))
