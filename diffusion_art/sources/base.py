"""What every source of pictures promises, so that one builder turns any of them into shards.

A source cuts itself into *chunks*: small picklable work items (a slice of a row group, 256 seeds of the
painter) in a fixed order. The builder hands chunks to processes and keeps the results in chunk order, so the
shards do not depend on how many cores made them. The source object is pickled once into each process: keep
it to plain settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as its source has it: nothing resized, no column cleaned."""

    image: bytes | np.ndarray  # an encoded file, or uint8 [h w 3] RGB
    columns: dict[str, str]  # title artist date genre style description caption, or whatever is known
    identity: bytes  # what the key hashes: the file's bytes, or b"painter/<version>/<seed>/<index>"
    name: str  # how an error message points at it: a file, a row, `painter 17`
    captions: tuple[str, ...] = ()  # two or more ready ones, raw; empty where the columns make the one caption
    split: str | None = None  # "train" or "val" where a file or folder name says so


@dataclass(frozen=True, slots=True)
class BadPicture:
    """A picture that cannot be used. It is counted, named in `bad_pictures.txt` and skipped."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A picture that is left out on purpose: of a test split, or the empty row of a dead link.

    It is counted by its reason and is no bad picture. A reason reads well after a number: "pictures of the test
    split".
    """

    name: str
    reason: str


class Note(LeftOut):
    """Something to count about a picture that is kept, and yielded beside it: "texts read as Windows-1252"."""

    __slots__ = ()


Item = Picture | BadPicture | LeftOut


@runtime_checkable
class Source(Protocol):
    """Where pictures come from.

    A class that says `opens_at_once = True` looks at no file when it is made.

    `chunks` is called once, in the parent; `pictures` in any process, in any order, and must depend on
    nothing but the source's settings and the chunk. Yield a `BadPicture` for one that cannot be read, a `LeftOut`
    for one that is not wanted; raise `UserError` where skipping does not help (a truncated parquet file).
    """

    @property  # a plain attribute will do, as for the others
    def name(self) -> str:
        """Of the data set: a word fit for a folder name."""
        ...

    @property
    def count(self) -> int | None:
        """Pictures in all, None where nobody knows before reading."""
        ...

    @property
    def columns(self) -> tuple[str, ...] | None:
        """What a caption template may name, None where unknown."""
        ...

    @property
    def caption_template(self) -> str | None:
        """Used when the user gives none; None means the `caption` column."""
        ...

    def describe(self) -> dict[str, Any]:
        """What makes the pictures what they are, as plain JSON: two equal answers mean equal shards.

        Kept in the manifest, so it holds no absolute path. Cheap: files count by name, size and time of change,
        and are not read.
        """
        ...

    def left_out(self) -> dict[str, int]:
        """{what is left out and why: how many}, as far as listing the files shows it; keys read like a `LeftOut`'s
        reason. Asked of the parent's source when the last chunk was read.
        """
        ...

    def chunks(self) -> Iterable[Any]:
        """Picklable work items in the samples' order; 64 to 256 pictures each keep all cores busy."""
        ...

    def pictures(self, chunk: Any) -> Iterator[Item]:
        """The pictures of one chunk, in order."""
        ...


def pictures_of(source: Source) -> Iterator[Picture]:
    """The pictures of all chunks, in order, without what is none."""
    items = (item for chunk in source.chunks() for item in source.pictures(chunk))
    return (item for item in items if isinstance(item, Picture))
