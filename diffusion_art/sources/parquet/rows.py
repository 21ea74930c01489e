"""The rows of parquet files, streamed: a few batches are held, also of a row group of many gigabytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from diffusion_art.errors import UserError
from diffusion_art.sources.parquet.file import Layout, RowSplits, broken, identity_of, open_parquet

ROWS_PER_CHUNK = 128  # about 2 MB of WikiArt, a third of a second of work


class Rows(NamedTuple):
    """A chunk: rows [start, stop) of one row group, `first_row` being the file's number of its row 0."""

    file: str
    row_group: int
    start: int
    stop: int
    first_row: int
    layout: Layout
    split: str | None  # of the whole file
    row_splits: RowSplits  # what a column of splits says


class RowReader:
    """Reads forwards: chunks come to a process in rising order, so that it seldom starts a row group anew."""

    def __init__(self) -> None:
        self._group: tuple[str, int, tuple[str, ...]] | None = None  # a file, its row group, and the columns to read
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._held: deque[tuple[int, pa.RecordBatch]] = deque()  # (number of its first row, batch), ascending
        self._next_row = 0  # that follows those held

    def rows(self, chunk: Rows, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows [start, stop) of the row group of a chunk; fewer at its end. UserError where they cannot be read.

        The row before `start` stays at hand, for a chunk that looks back.
        """
        group = chunk.file, chunk.row_group, chunk.layout.columns
        try:
            if group != self._group or start < (self._held[0][0] if self._held else self._next_row):
                self._group = group
                self._begin(*group)
            found = []
            for first, batch in self._cover(start, stop):
                at = max(start - first, 0)
                found += batch.slice(at, min(stop - first, batch.num_rows) - at).to_pylist()
            return found
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self._group = None
            raise UserError(broken(chunk.file, f"row group {chunk.row_group} cannot be read ({error})")) from error

    def _begin(self, file: str, row_group: int, columns: tuple[str, ...]) -> None:
        self._next_row = 0
        self._held.clear()
        self._batches = open_parquet(file).iter_batches(
            ROWS_PER_CHUNK, row_groups=[row_group], columns=list(columns), use_threads=False
        )

    def _cover(self, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches that rows [start, stop) lie in; what ends before the row before `start` is let go."""
        while self._next_row < stop and (batch := next(self._batches, None)) is not None:
            self._held.append((self._next_row, batch))
            self._next_row += batch.num_rows
            while self._held and self._held[0][0] + self._held[0][1].num_rows < start:
                self._held.popleft()
        yield from (held for held in self._held if held[0] < stop and held[0] + held[1].num_rows > start)


_READER = RowReader()  # one per process; the source itself stays plain settings


def pictures_in(chunk: Rows) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(number of its first row in the file, its rows) for each picture that begins in the chunk.

    Neighbours with the same image are one picture, also over the end of a chunk, where the rows have captions.
    """
    layout = chunk.layout
    look_around = layout.has_captions
    before = _READER.rows(chunk, chunk.start - 1, chunk.start) if look_around and chunk.start else []
    rows = _READER.rows(chunk, chunk.start, chunk.stop)
    if len(rows) < chunk.stop - chunk.start:
        raise UserError(broken(chunk.file, f"row group {chunk.row_group} has fewer rows than its footer says"))
    number, last = chunk.first_row + chunk.start, _image_of(before, layout)
    pictures: list[tuple[int, list[dict[str, Any]]]] = []
    for number, row in enumerate(rows, chunk.first_row + chunk.start):
        image = _image_of([row], layout)
        if not look_around or image is None or image != last:
            pictures.append((number, [row]))
        elif pictures:
            pictures[-1][1].append(row)
        last = image
    at = chunk.stop
    while look_around and pictures and last and _image_of(more := _READER.rows(chunk, at, at + 1), layout) == last:
        pictures[-1][1].extend(more)
        at += 1
    yield from pictures


def _image_of(rows: list[dict[str, Any]], layout: Layout) -> bytes | str | None:
    """What tells the image of the first of `rows` from another."""
    return identity_of(rows[0][layout.image]) if rows else None
