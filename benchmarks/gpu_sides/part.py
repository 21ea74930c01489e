"""A part of the benchmark: lines of the table, how they are measured, and where the raw numbers are kept."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import claim, missing

from gpu_sides.ground import Ground

Raw = dict[str, Any]
Rows = list[dict[str, Any]]


class NotMeasured(Exception):
    """A part that cannot be measured here, with the reason."""


@dataclass(frozen=True)
class Part:
    """`measure` gives raw numbers, which JSON can hold; `rows` turns them into rows, of which `lines` are the names.

    `takes_s` is about how long it takes on one GPU of Hopper's class.
    """

    name: str
    lines: Sequence[str]
    takes_s: float
    measure: Callable[[Ground], Raw]
    rows: Callable[[Raw, dict[str, Any]], Rows]

    def missing(self, reason: str, about: dict[str, Any]) -> Rows:
        return [missing(line, reason, **about) for line in self.lines]


def kept(part: Part, ground: Ground) -> Raw | None:
    """Raw numbers of an earlier start, if they are of the same commit, device, torch and scale."""
    file = _file(part, ground)
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    return found["raw"] if found["key"] == ground.key() else None


def keep(part: Part, ground: Ground, raw: Raw) -> None:
    file = _file(part, ground)
    half = file.with_suffix(".half")
    half.write_text(json.dumps({"key": ground.key(), "raw": raw}, indent=1) + "\n")
    half.replace(file)


def _file(part: Part, ground: Ground) -> Path:
    return ground.folder / f"{part.name}.json"


def compared(
    line: str,
    *,
    ours: float,
    peer: float,
    peer_name: str,
    ratios: Sequence[float],
    at_least: float | None = None,
    at_most: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A claim on the median of the turns' ratios, which is to be `at_least` or `at_most` so much."""
    ratio = statistics.median(ratios)
    if at_least is not None:
        goal, holds = f">= {at_least:g}", ratio >= at_least
    else:
        assert at_most is not None
        goal, holds = f"<= {at_most:g}", ratio <= at_most
    sides = {"ours": ours, "peer": peer, "peer_name": peer_name}
    return claim(line, **sides, ratio=ratio, ratios=list(ratios), goal=goal, holds=holds, **more)
