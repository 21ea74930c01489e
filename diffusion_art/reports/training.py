"""The training part of a run's `report.html`: curves, a slider through the grids, figures, the command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from diffusion_art.reports.curves import Curves
from diffusion_art.reports.document import data, script, section, write_part
from diffusion_art.reports.grids import Film

FILE = "report.html"
POINTS = 600  # of a curve at the most
_FOLLOWED = {
    "style": "style",
    "palette": "both colours",
    "held_out": "held-out pairs: style and both colours",
    "held_out_style": "held-out pairs: style",
    "held_out_palette": "held-out pairs: both colours",
}
_LEVELS = '<p class="soft">Of the times t that pictures are noised to: 0 is clean, 1 is noise.</p>'
_NOT_DRAWN = "Curves need JavaScript; metrics.csv beside this page has the numbers."


class TrainingReport:
    """Writes the training part of the `report.html` in a run folder, again and again as the run goes on.

    Rows of `metrics.csv` and grids are read once each, and curves and grids are limited in number, so what a writing
    costs does not grow with the run.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._curves = Curves(run / "metrics.csv", most=POINTS)
        self._film = Film(run)

    def write(self, title: str, *, command: str, about: Sequence[tuple[str, Any]], state: str) -> None:
        """`about` are names and values of what was run, `state` one line on how far it is."""
        self._curves.update()
        parts = [
            f'<p class="soft">{escape(state)}</p>',
            _tiles(self._curves.last),
            section("Loss", _figure("loss")),
            section("Loss by noise level", _LEVELS + _figure("noise") if self._by_noise_level() else ""),
            section("Samples", _film(self._film.frames())),
            section("Rates and speed", _figures(self._rates())),
            section("Validation", self._validation()),
            section("Caption following", _caption_following(self.run / "caption_following.json")),
            section("How it was made", f"<pre>{escape(command)}</pre>{_table(about)}"),
            f"<noscript><p>{_NOT_DRAWN}</p></noscript>",
            data("curves", self._charts()),
            script("chart.js", "report.js"),
        ]
        write_part(self.run / FILE, "training", "\n".join(part for part in parts if part), title=title)

    # ------------------------------------------------------------------ curves

    def _charts(self) -> dict[str, Any]:
        """What is drawn, by the name of its place on the page."""
        losses = [self._line("train/loss", "train", mean=True)]
        losses.append(self._line("val/loss", "validation, averaged weights", colour=1, dots=True))
        levels = [
            self._line(name, name.rpartition("_")[2], colour=place, dots=True)
            for place, name in enumerate(self._by_noise_level())
        ]
        charts = {
            "loss": {"lines": losses, "zero": True, "height": 320},
            "noise": {"lines": levels, "zero": True, "height": 280},
        }
        for name, title in self._rates().items():
            charts[name] = {"lines": [self._line(name, name)], "title": title, "height": 200, "zero": True}
        return charts

    def _line(self, name: str, label: str, **more: Any) -> dict[str, Any]:
        return {"label": label, "name": name, **self._curves.points(name), **more}

    def _by_noise_level(self) -> list[str]:
        """Of training where it logs them, else of validation: `val/loss_clean`, `_middle`, `_noisy`."""
        for prefix in ("train/loss_", "val/loss_"):
            if names := [name for name in self._curves.names if name.startswith(prefix)]:
                return names
        return []

    def _rates(self) -> dict[str, str]:
        titles = {
            "train/lr": "Learning rate",
            "train/grad_norm": "Norm of the gradients, before clipping",
            "time/images_per_s": "Pictures per second",
            "time/data_wait_share": "Share of the time spent waiting for the stream",
        }
        terms = {name: f"Loss term: {name[6:]}" for name in self._curves.names if name.startswith("train/")}
        skipped = {"train/loss", *self._by_noise_level()}
        known = {name: title for name, title in titles.items() if name in self._curves.names}
        return known | {name: title for name, title in terms.items() if name not in known and name not in skipped}

    def _validation(self) -> str:
        """The last and the least value of each figure of validation."""
        rows = []
        for name in self._curves.names:
            if not name.startswith("val/"):
                continue
            told = self._curves.points(name)
            if not told["y"]:
                continue
            least = min(range(len(told["y"])), key=told["y"].__getitem__)
            cells = (told["y"][-1], told["x"][-1], told["y"][least], told["x"][least])
            numbers = "".join(f'<td class="number">{_short(cell)}</td>' for cell in cells)
            rows.append(f"<tr><td>{escape(name)}</td>{numbers}</tr>")
        names = "".join(f'<th class="number">{name}</th>' for name in ("last", "at step", "lowest", "at step"))
        return f'<div class="wide"><table><tr><th></th>{names}</tr>{"".join(rows)}</table></div>' if rows else ""


# ---------------------------------------------------------------------- parts


def _tiles(last: Mapping[str, float]) -> str:
    shown = {
        "train/loss": last.get("train/loss"),
        "val/loss": last.get("val/loss"),
        "learning rate": last.get("train/lr"),
        "pictures/s": last.get("time/images_per_s"),
        "waiting": last.get("time/data_wait_share"),
    }
    cells = [
        f"<div><dt>{name}</dt><dd>{f'{value:.1%}' if name == 'waiting' else _short(value)}</dd></div>"
        for name, value in shown.items()
        if value is not None
    ]
    return f'<dl class="tiles">{"".join(cells)}</dl>' if cells else ""


def _figure(name: str) -> str:
    return f'<figure data-chart="{escape(name)}"></figure>'


def _figures(names: Mapping[str, str]) -> str:
    return f'<div class="charts">{"".join(map(_figure, names))}</div>' if names else ""


def _film(frames: Mapping[int, str]) -> str:
    if not frames:
        return ""
    last = max(frames)
    pictures = "".join(
        f'<img alt="samples at step {step:,}" data-step="{step}"{"" if step == last else " hidden"} src="{url}">'
        for step, url in frames.items()
    )
    count = len(frames) - 1
    return (
        '<figure class="film"><div class="controls"><button type="button">Play</button>'
        f'<input type="range" aria-label="Training step of the samples" min="0" max="{count}" value="{count}" step="1">'
        f"<output>step {last:,}</output></div>{pictures}</figure>"
    )


def _caption_following(file: Path) -> str:
    """The shares of prompts that were followed, each with its number of prompts."""
    if not file.is_file():
        return ""
    told = json.loads(file.read_text(encoding="utf-8"))
    rows = [
        (label, f"{told[key]:.1%} of {told[f'{key}_count']} prompts")
        for key, label in _FOLLOWED.items()
        if told.get(f"{key}_count")
    ]
    return f'<p class="soft">Measured at step {told["step"]:,}.</p>{_table(rows)}' if "step" in told else _table(rows)


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    lines = "".join(f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f'<div class="wide"><table>{lines}</table></div>' if lines else ""


def _short(value: float) -> str:
    """12,300; 4.568; 0.0001; nan."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"
