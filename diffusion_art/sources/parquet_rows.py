"""Rows of a parquet row group, streamed: a few batches are held, also of a row group of many gigabytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from diffusion_art.errors import UserError
from diffusion_art.sources.formats import GIT_LFS, is_lfs_pointer, looks_like_picture

ROWS_PER_CHUNK = 128  # about 2 MB of WikiArt, a third of a second of work
_LOOKED_AT = 8
_READ_AHEAD_BYTES = 2**20  # streams a column instead of holding a whole row group in memory


class Group(NamedTuple):
    """A row group of a file, and the columns to read of it."""

    file: str
    row_group: int
    columns: tuple[str, ...]


class RowReader:
    """Reads forwards: chunks come to a process in rising order, so that it seldom starts a row group anew."""

    def __init__(self) -> None:
        self._group: Group | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._held: deque[tuple[int, pa.RecordBatch]] = deque()  # (number of its first row, batch), ascending
        self._next_row = 0  # that follows those held

    def rows(self, group: Group, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows [start, stop) of a row group; fewer at its end. UserError where they cannot be read.

        The row before `start` stays at hand, for a chunk that looks back.
        """
        try:
            if group != self._group or start < (self._held[0][0] if self._held else self._next_row):
                self._begin(group)
            found = []
            for first, batch in self._cover(start, stop):
                at = max(start - first, 0)
                found += batch.slice(at, min(stop - first, batch.num_rows) - at).to_pylist()
            return found
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self._group = None
            what = f"row group {group.row_group} cannot be read ({error})"
            raise UserError(broken(group.file, what)) from error

    def _begin(self, group: Group) -> None:
        self._group, self._next_row = group, 0
        self._held.clear()
        self._batches = open_parquet(group.file).iter_batches(
            ROWS_PER_CHUNK, row_groups=[group.row_group], columns=list(group.columns), use_threads=False
        )

    def _cover(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches that rows [start, stop) lie in; what ends before the row before `start` is let go."""
        while self._next_row < stop and (batch := next(self._batches, None)) is not None:
            self._held.append((self._next_row, batch))
            self._next_row += batch.num_rows
            while self._held and self._held[0][0] + self._held[0][1].num_rows < start:
                self._held.popleft()
        yield from (held for held in self._held if held[0] < stop and held[0] + held[1].num_rows > start)


def open_parquet(file: str) -> pq.ParquetFile:
    """UserError for a file that is no whole parquet file."""
    with suppress(OSError), Path(file).open("rb") as opened:
        if is_lfs_pointer(opened.read(32)):
            raise UserError(f"{file} is {GIT_LFS}.")
    try:
        return pq.ParquetFile(file, buffer_size=_READ_AHEAD_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise UserError(broken(file, f"is no whole parquet file ({error})")) from error


def holds_pictures(file: str, column: str) -> bool:
    """Whether the first images in a column are what the name or the type of the column says; empty ones may be."""
    try:
        batch = next(open_parquet(file).iter_batches(_LOOKED_AT, columns=[column], use_threads=False), None)
        values = batch[column].to_pylist() if batch else []
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(broken(file, f"cannot be read ({error})")) from error
    found = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    found = [data for data in found if data]
    return not found or any(map(looks_like_picture, found))


def broken(file: str, what: str) -> str:
    return f"{file} {what}. Copy or download it again."
