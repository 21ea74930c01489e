"""Curves of quality over cost: when one first reaches a value, and their picture."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

RISING = {"style": True, "palette": True, "held_out": True, "fd": False, "kid": False, "val_x0": False}
LABELS = {
    "style": "style right, seen combinations",
    "palette": "both colours right, seen",
    "held_out": "style and colours right, held out",
    "fd": "Frechet distance",
    "kid": "kernel distance",
    "val_x0": "x_0 error at fixed log SNR",
}
AXES = {"wall_s": "training wall-clock, s", "flops": "training FLOPs"}

Point = dict[str, Any]


def cost_to_reach(curve: list[Point], metric: str, target: float, axis: str) -> float | None:
    """The cost at which a curve first reaches `target`; None if it never does.

    Between two points the metric is a line over the logarithm of the cost. Where the first point is there already,
    its cost, which is more than was needed.
    """
    sign = 1 if RISING[metric] else -1
    before: Point | None = None
    for point in sorted(curve, key=lambda point: point[axis]):
        if sign * point[metric] >= sign * target:
            if before is None:
                return point[axis]
            share = (target - before[metric]) / (point[metric] - before[metric])
            return math.exp(math.log(before[axis]) * (1 - share) + math.log(point[axis]) * share)
        before = point
    return None


def final(curves: list[list[Point]], key: str) -> float:
    """The median over seeds of a curve's last value."""
    return statistics.median(max(curve, key=lambda point: point["images"])[key] for curve in curves)


def draw(curves: dict[str, list[list[Point]]], path: Path, *, floor: Point, title: str) -> None:
    """A row for each axis, a column for each metric, a line for each seed of each recipe."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(3.6 * len(RISING), 3.2 * len(AXES)), dpi=80, layout="constrained")
    grid = figure.subplots(len(AXES), len(RISING), squeeze=False)
    colours = {name: f"C{number % 10}" for number, name in enumerate(curves)}
    for row, (axis, axis_label) in zip(grid, AXES.items()):
        for place, (metric, label) in zip(row, LABELS.items()):
            for name, of_seeds in curves.items():
                style = "--" if name.startswith("wikiart_eir") else "-"
                for number, curve in enumerate(of_seeds):
                    xs, ys = [p[axis] for p in curve], [p[metric] for p in curve]
                    shown = name if number == 0 else None
                    place.plot(xs, ys, style, color=colours[name], marker="o", markersize=3, linewidth=1.3, label=shown)
            if metric in floor:
                place.axhline(floor[metric], color="#888888", linewidth=0.8, linestyle=":")
            place.set_xscale("log")
            if metric in ("fd", "val_x0"):
                place.set_yscale("log")
            low, high = place.get_xlim()
            if high >= 10 * low:  # in less than a decade the numbers between are the only ones
                place.xaxis.set_minor_formatter(NullFormatter())
            place.tick_params(axis="x", which="minor", labelsize=6)
            place.set_xlabel(axis_label)
            place.set_title(label, fontsize=9)
            place.grid(alpha=0.25)
    grid[0][0].legend(frameon=False, fontsize=7)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))
