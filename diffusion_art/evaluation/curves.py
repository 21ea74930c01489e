"""Several values of a setting: every combination of them is measured, and drawn as curves.

Curves are SVG text: a figure of every metric over what was swept, and errors over log SNR.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from diffusion_art.evaluation.metrics import Figure, Metric

INK, GRID = "#2b2b2e", "#dcdce0"
COLOURS = ("#1d3557", "#c8553d", "#588b8b", "#d39b22", "#7d5ba6", "#4f772d")
PAGE_COLOURS = {INK: "--ink", GRID: "--line"} | {colour: f"--c{place}" for place, colour in enumerate(COLOURS)}
TITLES = {"num_steps": "steps", "guidance_scale": "guidance scale", "checkpoint": "training step", "sampler": ""}
WIDTH_IN, HEIGHT_IN = 3.6, 2.6


def sweep_curves(
    axes: Mapping[str, Sequence[Any]], results: Sequence[Mapping[str, Any]], metrics: Mapping[str, Metric]
) -> str:
    """One small chart for each figure; a line for each combination of the other axes. SVG."""
    across = abscissa(axes)
    drawn = [
        (name, figure) for name, metric in metrics.items() for figure in metric.figures if figure.better != "neither"
    ]
    drawn = [(name, figure) for name, figure in drawn if any(name in result for result in results)]
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        others = {axis: value for axis, value in result["at"].items() if axis != across}
        lines.setdefault(label(others), []).append(result)
    return _charts(
        [
            (figure, [(told, *_line(name, figure, across, part)) for told, part in lines.items()])
            for name, figure in drawn
        ],
        across=TITLES[across],
    )


def log_snr_curve(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The squared error in x_0 at each log SNR, a line for each result by its label. SVG."""
    figure = Figure("val_x0", "squared error in x_0", "lower")
    lines = [
        (told, [float(key) for key in result["by_log_snr"]], list(result["by_log_snr"].values()), None)
        for told, result in results.items()
    ]
    return _charts([(figure, lines)], across="log SNR", logarithmic=True)


def _line(
    name: str, figure: Figure, across: str, results: Sequence[Mapping[str, Any]]
) -> tuple[list[float | str], list[float], list[float] | None]:
    there = [result for result in results if name in result and figure.value(result[name]) is not None]
    scale = 100 if figure.percent else 1
    rows = [
        (place(across, result["at"][across]), scale * (figure.value(result[name]) or 0.0), figure.bar(result[name]))
        for result in there
    ]
    if all(isinstance(x, float | int) for x, _, _ in rows):
        rows.sort(key=lambda row: row[0])
    bars = None if any(bar is None for _, _, bar in rows) else [scale * float(bar or 0) for _, _, bar in rows]
    return [x for x, _, _ in rows], [y for _, y, _ in rows], bars


def _charts(charts: Sequence[tuple[Figure, Sequence[tuple]]], *, across: str, logarithmic: bool = False) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    columns = min(3, len(charts))
    rows = -(-len(charts) // columns)
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "diffusion_art", "font.size": 9}
    settings |= dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none")
    settings |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with matplotlib.rc_context(settings):
        canvas = Canvas(figsize=(WIDTH_IN * columns, HEIGHT_IN * rows), layout="constrained")
        for number, (figure, lines) in enumerate(charts):
            axes = canvas.add_subplot(rows, columns, number + 1)
            for colour, (told, x, y, bars) in zip(COLOURS * 9, lines):
                axes.errorbar(x, y, yerr=bars, color=colour, label=told or None, marker="o", markersize=3.5, capsize=2)
            if logarithmic:
                axes.set_yscale("log")
            _plain(axes, f"{figure.label}{', %' if figure.percent else ''} ({figure.better} is better)", across)
        if max(len(lines) for _, lines in charts) > 1:
            canvas.legend(*canvas.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=6, frameon=False)
        text = io.StringIO()
        FigureCanvasSVG(canvas).print_svg(text, metadata={"Date": None})
    drawn = text.getvalue()[text.getvalue().index("<svg") :]
    for colour, name in PAGE_COLOURS.items():  # those of the page, light or dark
        drawn = drawn.replace(colour, f"var({name})")
    return drawn


def _plain(axes: Any, title: str, across: str) -> None:
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.set_xlabel(across, color=INK)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


# ---------------------------------------------------------------------- sweeps

AXES = ("checkpoint", "sampler", "num_steps", "guidance_scale")  # what may be given as a list


def swept(asked: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The settings that are lists, with their values, each once."""
    return {axis: list(dict.fromkeys(asked[axis])) for axis in AXES if isinstance(asked[axis], list)}


def points(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last axis fastest: `[{"num_steps": 5, "guidance_scale": 1}, ...]`."""
    return [dict(zip(axes, values)) for values in product(*axes.values())]


def label(point: Mapping[str, Any]) -> str:
    """`5 steps, guidance 2` of a point."""
    told = {"checkpoint": "{}", "sampler": "{}", "num_steps": "{} steps", "guidance_scale": "guidance {:g}"}
    return ", ".join(told[axis].format(value) for axis, value in point.items())


def folder_name(point: Mapping[str, Any]) -> str:
    """`num_steps=5,guidance_scale=2` of a point."""
    return ",".join(f"{axis}={re.sub(r'[^A-Za-z0-9._-]', '_', str(value))}" for axis, value in point.items())


def abscissa(axes: Mapping[str, Sequence[Any]]) -> str:
    """The axis that curves are drawn over: the one of most values among those that are numbers."""
    numbers = [axis for axis in axes if axis != "sampler"] or list(axes)
    return max(numbers, key=lambda axis: len(axes[axis]))


def place(axis: str, value: Any) -> float | str:
    """Where a value stands on its axis: of a checkpoint its step, if its name tells."""
    if axis == "checkpoint":
        step = re.search(r"step_(\d+)", str(value))
        return int(step[1]) if step else str(value)
    return value if isinstance(value, str) else float(value)
