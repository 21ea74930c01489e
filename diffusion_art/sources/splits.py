"""Which split a picture belongs to, where the names of files, folders or a table's column say so.

    train/a.jpg   train2017/a.jpg   validation-00000.tar   semart_test.csv   {"split": "restval"}

A named validation split is the validation split; pictures of a test split are never trained on. Names divide a
collection only where they name a part to train on and another one: a folder with nothing but `train-*.parquet`, or
nothing but `test/`, is one undivided collection.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

TEST_SPLIT = "pictures of a test split"

_TRAIN, _VAL, _TEST = "train", "val", "test"
_WORDS = {
    **dict.fromkeys(("train", "training", "restval", "trn"), _TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), _VAL),
    **dict.fromkeys(("test", "testing", "tst"), _TEST),
}
_FILLERS = {"set", "split", "data", "image", "images", "img", "imgs", "pictures", "partial", "of", ""}
_LETTERS = re.compile(r"[a-z]+")


def split_word(value: str) -> str | None:
    """Of a cell of a `split` column."""
    return _WORDS.get(value.strip().lower())


def split_of_file(name: str) -> str | None:
    """Of a file that holds many samples, by the words in its name: `train-00000-of-00004.parquet`."""
    base = name[name.rfind("/") + 1 :].lower()
    found = {_WORDS[word] for word in _LETTERS.findall(base) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def split_of_folder(name: str) -> str | None:
    """Of one folder, whose name must say nothing else: `train2017`, `test_set`."""
    words = _LETTERS.findall(name.lower())
    found = {_WORDS[word] for word in words if word in _WORDS}
    return found.pop() if len(found) == 1 and all(word in _WORDS or word in _FILLERS for word in words) else None


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
        """`test` wins over `val`, and `val` over `train`, where folders within each other are named so."""
        folder = file[: file.rfind("/") + 1].rstrip("/")
        if folder not in self._known:
            parts = folder.split("/")
            found = {self._named.get("/".join(parts[: depth + 1])) for depth in range(len(parts))}
            self._known[folder] = next((split for split in (_TEST, _VAL, _TRAIN) if split in found), None)
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


def _divided(names: Iterable[str]) -> dict[str, str]:
    found = {name: split for name in names if (split := split_of_folder(name))}
    alone = set(found.values()) == {_TRAIN} and len(found) < len(set(names))
    return {} if alone else found
