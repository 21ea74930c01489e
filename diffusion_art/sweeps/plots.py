"""What a sweep found, drawn: how much each key mattered, and each trial as a line through its values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from diffusion_art.files import written
from diffusion_art.sweeps.study import finite
from diffusion_art.sweeps.table import Row, Table, short, shown

INK, FAINT, BEST = "#1d3557", "#c3c8cf", "#e63946"
BEHIND_TEXT = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
FEWEST = 4  # trials that came to their end, below which an importance says nothing


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each key in what made trials good, by PED-ANOVA (Watanabe et al. 2023); empty if none is known.

    Good are a tenth of the trials that came to their end, and at least `FEWEST` or half of them.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    complete = [trial for trial in complete if finite(trial.value)]
    keys = [key for trial in complete for key in trial.params]
    if len(complete) < FEWEST or len(set(keys)) < 2 or len({trial.value for trial in complete}) < 2:
        return {}
    names = short(keys)
    good = max(0.1, min(0.5, FEWEST / len(complete)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=good)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {names[key]: float(share) for key, share in shares.items()}


def plot_importances(shares: dict[str, float], path: Path, *, metric: str, trials: int) -> None:
    """A bar for each key, the most important on top."""
    figure = Figure(figsize=(6.4, 1.3 + 0.42 * len(shares)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color=INK, height=0.62)
    axes.bar_label(bars, labels=[f"{shares[name]:.0%}" for name in names], padding=4, color=INK)
    axes.set_xlim(0, min(1.12, max(shares.values()) * 1.18))
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(f"share in what made {metric} good, {trials} whole trials (PED-ANOVA)", fontsize=10, loc="left")
    with written(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def plot_parallel(table: Table, path: Path) -> None:
    """One axis for each key and one for the metric. The best is red, pruned trials are dashed, failed ones left out."""
    rows = [row for row in table.rows if finite(row.value)]
    scales = [
        _Scale(one, [row.params[name] for row in rows if name in row.params]) for name, one in table.space.items()
    ]
    figure = Figure(figsize=(max(6.4, 2.1 * (len(scales) + 1)), 4.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    complete = [row.value for row in rows if row.state == "complete" and row.value is not None]
    values = _Scale(None, complete or [row.value for row in rows])
    colours = ScalarMappable(Normalize(values.low, values.high), "viridis")
    for row in sorted(rows, key=lambda row: (row.state == "complete", row.best)):
        _line(axes, row, table, scales, values, colours)
    for place, (name, scale) in enumerate([*zip(table.space, scales), (table.metric, values)]):
        _axis(axes, place, name, scale)
    better = "low" if table.direction == "minimize" else "high"
    axes.set_xlim(-0.25, len(scales) + 0.45)
    axes.set_ylim(-0.06, 1.06)
    axes.set_xticks(range(len(scales) + 1), [*table.space, f"{table.metric}\n({better} is good)"])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=8)
    counts = {state: sum(row.state == state for row in table.rows) for state in ("complete", "pruned", "failed")}
    axes.set_title(", ".join(f"{count} {state}" for state, count in counts.items() if count), fontsize=10, loc="left")
    with written(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


class _Scale:
    """Where a value stands on its axis, from 0 to 1, and which of them are written beside it."""

    def __init__(self, distribution: BaseDistribution | None, values: list[Any]) -> None:
        self.choices: list[Any] | None = None
        self._to: Callable[[float], float] = float
        if isinstance(distribution, CategoricalDistribution):
            self.choices = list(distribution.choices)
            self.low, self.high = 0.0, float(max(1, len(self.choices) - 1))
            self.ticks = self.choices
            return
        log = getattr(distribution, "log", False)
        low = getattr(distribution, "low", None)
        high = getattr(distribution, "high", None)
        self.low = float(min(values)) if low is None else float(low)
        self.high = float(max(values)) if high is None else float(high)
        if log:
            self._to = np.log
            decades = range(int(np.ceil(np.log10(self.low) - 1e-9)), int(np.floor(np.log10(self.high) + 1e-9)) + 1)
            self.ticks = sorted({self.low, self.high, *(10.0**power for power in decades)})
        else:
            self.ticks = list(np.linspace(self.low, self.high, 5))
        if isinstance(low, int):
            self.ticks = sorted({round(tick) for tick in self.ticks})

    def __call__(self, value: Any) -> float:
        if self.choices is not None:
            return self.choices.index(value) / self.high if len(self.choices) > 1 else 0.5
        low, high = self._to(self.low), self._to(self.high)
        return float(np.clip((self._to(value) - low) / (high - low), -0.03, 1.03)) if high > low else 0.5


def _line(axes: Axes, row: Row, table: Table, scales: list[_Scale], values: _Scale, colours: ScalarMappable) -> None:
    heights = [scale(row.params[name]) for name, scale in zip(table.space, scales)] + [values(row.value)]
    if row.state == "complete":
        colour = BEST if row.best else colours.to_rgba(np.asarray(row.value))
        style = {"color": colour, "linewidth": 2.6 if row.best else 1.4, "alpha": 1.0 if row.best else 0.8}
    else:
        style = {"color": FAINT, "linewidth": 1.0, "linestyle": (0, (4, 3))}
    axes.plot(range(len(heights)), heights, marker="o", markersize=3.5, **style)  # type: ignore[arg-type]
    if row.best:
        axes.annotate(
            f"  #{row.number}", (len(heights) - 1, heights[-1]), color=BEST, va="center", ha="right", xytext=(-8, 0),
            textcoords="offset points", fontsize=9,
        )  # fmt: skip


def _axis(axes: Axes, place: int, name: str, scale: _Scale) -> None:
    axes.axvline(place, color=INK, linewidth=0.8, zorder=0)
    for tick in scale.ticks:
        axes.text(place + 0.04, scale(tick), shown(tick), fontsize=8, color=INK, va="center", bbox=BEHIND_TEXT)
