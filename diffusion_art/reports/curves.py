"""Curves of bounded size, however long the run: where there are too many points, neighbours become their mean."""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from typing import Any

from diffusion_art.reports.metrics_file import MetricsFile, Row

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
