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

# The order of the descriptions in `Artificio/WikiArt`: "Artist / Title / Style / genre / date".
ART_TEMPLATE = "{artist} / {title} / {style} / {genre} / {date}"


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as its source has it: nothing resized, no column cleaned."""

    image: bytes | np.ndarray  # an encoded file, or uint8 [h w 3] RGB
    columns: dict[str, str]  # title artist date genre style description caption, or whatever is known
    identity: bytes  # what the key hashes: the file's bytes, or b"painter/<version>/<seed>/<index>"
    name: str  # how an error message points at it: a file, a row, `painter 17`


@dataclass(frozen=True, slots=True)
class BadPicture:
    """A picture that cannot be used. It is counted, named in `bad_pictures.txt` and skipped."""

    name: str
    reason: str


@runtime_checkable
class Source(Protocol):
    """Where pictures come from.

    `chunks` is called once, in the parent; `pictures` in any process, in any order, and must depend on
    nothing but the source's settings and the chunk. Yield a `BadPicture` for one that cannot be read; raise
    `UserError` for what no skipping mends (a truncated parquet file).
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

        Kept in the manifest, so it holds no absolute path and no time; files by name, size and digest.
        """
        ...

    def chunks(self) -> Iterable[Any]:
        """Picklable work items in the samples' order; 64 to 256 pictures each keep all cores busy."""
        ...

    def pictures(self, chunk: Any) -> Iterator[Picture | BadPicture]:
        """The pictures of one chunk, in order."""
        ...
