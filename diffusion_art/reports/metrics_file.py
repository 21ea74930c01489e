"""`metrics.csv` read while it grows: every row is read once, and a half-written last line is left for later.

The run's logger may write the last row again with more values, and the whole file when a column is new. So the last
row is told apart from the settled ones before it, and the file is read anew only where its head or a settled row is
another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

Row = dict[str, float]


class MetricsFile:
    """The rows of one file. `last` is its last whole row, which may still get further values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._forget()

    def _forget(self) -> None:
        self.columns: list[str] = []
        self.last: Row | None = None
        self._head = b""
        self._end = 0  # of the settled rows, in bytes
        self._line = b""  # the last of them

    def advance(self, settled: Callable[[Row], None], restarted: Callable[[], None]) -> None:
        """Read what is new. Calls `settled` with each row that will not change any more, and before that `restarted`
        where the rows told so far no longer hold.
        """
        try:
            file = self.path.open("rb")
        except OSError:  # not there yet, or not any more
            return
        with file:
            found = os.fstat(file.fileno())
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
            if seen == self._seen:
                return
            self._seen = seen
            if not self._goes_on(file):
                self._forget()
                restarted()
                if not self._read_head(file):
                    return
            self._read_rows(file, settled)

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether the file still begins with what was read of it."""
        if not self.columns or file.read(len(self._head)) != self._head:
            return False
        file.seek(self._end - len(self._line))
        return file.read(len(self._line)) == self._line

    def _read_head(self, file: BinaryIO) -> bool:
        file.seek(0)
        head = file.readline()
        if not head.endswith(b"\n"):
            return False
        self._head = self._line = head
        self._end = len(head)
        self.columns = columns_of(head)
        return True

    def _read_rows(self, file: BinaryIO, settled: Callable[[Row], None]) -> None:
        file.seek(self._end)
        held = b""
        for line in file:
            if not line.endswith(b"\n"):
                break
            if held:
                self._end += len(held)
                self._line = held
                settled(row_of(self.columns, held))
            held = line
        self.last = row_of(self.columns, held) if held else None


def columns_of(head: bytes) -> list[str]:
    """The names in the first line."""
    return head.decode("utf-8", "replace").rstrip("\r\n").split(",")


def row_of(columns: list[str], line: bytes) -> Row:
    """The values of a line by the names of their columns; cells that hold no number are left out."""
    cells = line.decode("utf-8", "replace").rstrip("\r\n").split(",")
    try:
        return {name: float(cell) for name, cell in zip(columns, cells) if cell}
    except ValueError:
        return {name: value for name, cell in zip(columns, cells) if (value := _number(cell)) is not None}


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
