"""Curves of bounded size, however long the run: where there are too many points, neighbours become their mean.

`metrics.csv` is read while it grows: every row is read once, and a half-written last line is left for later. The run's
logger may write the last row again with more values, and the whole file when a column is new. So the last row is told
apart from the settled ones before it, and the file is read anew only where its head or a settled row is another one.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

STEP, CLOCK = "step", "time/run_s"  # columns that all others are drawn over


class Curve:
    """Points of one metric, `most` at the most. Each stands for `stride` values: their mean, least and greatest, at
    the step of the last of them. Values that are no finite number are left out.
    """

    def __init__(self, most: int) -> None:
        self.most = most + most % 2
        self.stride = 1
        self._held = 0  # values in the last point
        self.x, self.y, self.low, self.high = (array("d") for _ in range(4))

    def add(self, step: float, value: float) -> None:
        if not math.isfinite(value):
            return
        if 0 < self._held < self.stride:
            self._held += 1
            self.x[-1] = step
            self.y[-1] += (value - self.y[-1]) / self._held
            self.low[-1], self.high[-1] = min(self.low[-1], value), max(self.high[-1], value)
            return
        if len(self.x) == self.most:
            self._halve()
            self.add(step, value)
            return
        for numbers, number in ((self.x, step), (self.y, value), (self.low, value), (self.high, value)):
            numbers.append(number)
        self._held = 1

    def _halve(self) -> None:
        """Two full points become one."""
        even, odd = slice(0, None, 2), slice(1, None, 2)
        self.x = self.x[odd]
        self.y = array("d", [(a + b) / 2 for a, b in zip(self.y[even], self.y[odd])])
        self.low = array("d", map(min, self.low[even], self.low[odd]))
        self.high = array("d", map(max, self.high[even], self.high[odd]))
        self.stride *= 2
        self._held = self.stride

    def points(self, last: tuple[float, float] | None = None) -> dict[str, list[float]]:
        """`x` and `y` (six digits), where points stand for several values also `low` and `high`. `last` is one more."""
        more = [last] if last is not None and math.isfinite(last[1]) else []
        told = {"y": [*self.y, *(y for _, y in more)]}
        if self.stride > 1:
            ends = [y for _, y in more]
            told |= {"low": [*self.low, *ends], "high": [*self.high, *ends]}
        steps = [int(x) if x.is_integer() else x for x in (*self.x, *(x for x, _ in more))]
        return {"x": steps} | {name: [float(f"{y:.6g}") for y in numbers] for name, numbers in told.items()}


class Curves:
    """All metrics of a run folder by name, kept up with `metrics.csv` by `update`.

    `last` holds the newest value of every metric.
    """

    def __init__(self, file: Path, *, most: int) -> None:
        self._file = MetricsFile(file)
        self._most = most
        self._clear()

    def _clear(self) -> None:
        self._curves: dict[str, Curve] = {}
        self._newest: Row = {}

    def update(self) -> None:
        self._file.advance(self._settled, self._clear)

    def _settled(self, row: Row) -> None:
        step = row.pop(STEP, math.nan)
        if not math.isfinite(step):
            return
        for name, value in row.items():
            curve = self._curves.get(name)
            if curve is None:
                curve = self._curves[name] = Curve(self._most)
            curve.add(step, value)
        self._newest.update(row)
        self._newest[STEP] = step

    @property
    def last(self) -> Row:
        return {**self._newest, **(self._file.last or {})}

    @property
    def names(self) -> list[str]:
        """The metrics that have a value, in order."""
        return sorted({*self._curves, *(self._file.last or {})} - {STEP})

    def points(self, name: str) -> dict[str, list[float]]:
        """The curve of a metric, empty where it was never logged."""
        newest = self._file.last or {}
        last = (newest[STEP], newest[name]) if name in newest and STEP in newest else None
        return self._curves.get(name, Curve(self._most)).points(last)

    def clock(self) -> dict[str, list[float]]:
        """Seconds of training (`y`) at some of the steps (`x`), where the run's logger wrote them."""
        told: dict[str, Any] = self.points(CLOCK)
        return {"x": told["x"], "y": told.get("high", told["y"])}


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
