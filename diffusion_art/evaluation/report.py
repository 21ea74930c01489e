"""The evaluation part of `report.html`. Pictures and curves lie in the page itself, so it opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffusion_art.config import config_dir, plain
from diffusion_art.evaluation.curves import log_snr_curve, sweep_curves
from diffusion_art.evaluation.metrics import Figure, Metric, metrics_of
from diffusion_art.evaluation.metrics.memorisation import FILE as MEMORISATION
from diffusion_art.evaluation.metrics.metric import AgainstReal
from diffusion_art.reports.document import data_url, section

BARS = 16  # of a column with more values the page shows the first
PAINTED = "evaluation.png"  # some of the pictures that were measured
BEWARE = (
    "Compare FD, KID, precision, recall, density and coverage only at the same network, number of pictures and data.",
    "Few pictures make FD too large; KID has no such bias. Error bars tell the spread between samples, not that bias.",
    "Guidance trades variety for fidelity: a low FD may come with a low recall. Look at both.",
    "No figure replaces a look at the pictures.",
)


@dataclass(frozen=True)
class Entry:
    """One model, painted in one way: its name in tables, what was measured, and where its pictures lie."""

    label: str
    result: Mapping[str, Any]
    folder: Path


def report(
    entries: Sequence[Entry],
    metrics: Mapping[str, Metric],
    *,
    command: str,
    about: Mapping[str, Any],
    axes: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """HTML of it. `about` are lines of what was measured; `axes` what was swept, if anything."""
    one = entries[0] if len(entries) == 1 else None
    parts = [
        f'<p class="soft">{escape(", ".join(str(value) for value in about.values()))}</p>',
        section("Figures", _figures(one, metrics) if one else comparison(entries, metrics)),
        section("Curves", sweep_curves(axes, [entry.result for entry in entries], metrics) if axes else ""),
        section("Pictures", "".join(_pictures(entry, named=one is None) for entry in entries)),
        section("By kind of picture", _slices(one, metrics) if one else ""),
        section("Error by noise level", _noise_levels(entries)),
        section("How to read this", "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in BEWARE) + "</ul>"),
        section("How it was made", _made(entries, command)),
    ]
    return "\n".join(part for part in parts if part)


def comparison(entries: Sequence[Entry], metrics: Mapping[str, Metric]) -> str:
    """A table with a row for each entry and a column for each figure; the best of a column stands out."""
    columns = _columns(entries, metrics)
    head = "".join(f'<th class="number">{escape(_head(figure))}</th>' for _, figure in columns)
    apart = _apart(entries, metrics)
    best = {
        place: [] if name in apart else _best(name, figure, entries) for place, (name, figure) in enumerate(columns)
    }
    rows = []
    for entry in entries:
        classes = ["number best" if entry.label in best[place] else "number" for place in best]
        cells = [
            f'<td class="{kind}">{_cell(name, figure, entry.result)}{escape(_of(name, apart, entry.result))}</td>'
            for kind, (name, figure) in zip(classes, columns)
        ]
        rows.append(f"<tr><td>{escape(entry.label)}</td>{''.join(cells)}</tr>")
    table = f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
    return table + "".join(f'<p class="soft">{escape(line)}</p>' for line in _beware(apart))


def comparison_text(entries: Sequence[Entry], metrics: Mapping[str, Metric]) -> str:
    """The same table as Markdown."""
    columns, apart = _columns(entries, metrics), _apart(entries, metrics)
    lines = ["| | " + " | ".join(_head(figure) for _, figure in columns) + " |", "|---|" + "---:|" * len(columns)]
    for entry in entries:
        cells = (
            figure.told(entry.result[name]) + _of(name, apart, entry.result) if name in entry.result else ""
            for name, figure in columns
        )
        lines.append(f"| {entry.label} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *("\n" + line for line in _beware(apart))])


def figures_told(result: Mapping[str, Any]) -> dict[str, str]:
    """The figures of an `evaluation.json` by what they are: `KID ↓ (efficientnet_lite0, 1,024 pictures)`.

    A sweep has none of its own: they lie in its `points`.
    """
    config = OmegaConf.load(config_dir() / "evaluate.yaml")
    nodes = plain(OmegaConf.merge(config, {"pictures": AgainstReal.pictures}))["metric"]
    metrics = metrics_of(nodes, [name for name in nodes if name in result])
    return {
        f"{_head(figure)}{metric.about(result[name])}": figure.told(result[name]).replace("+-", "±")
        for name, metric in metrics.items()
        for figure in metric.figures
    }


# ---------------------------------------------------------------------- parts


def _columns(entries: Sequence[Entry], metrics: Mapping[str, Metric]) -> list[tuple[str, Figure]]:
    return [
        (name, figure)
        for name, metric in metrics.items()
        if any(name in entry.result for entry in entries)
        for figure in metric.figures
    ]


def _apart(entries: Sequence[Entry], metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics that were not measured alike: with another network, number of pictures, or other pictures."""
    return {
        name: metric
        for name, metric in metrics.items()
        if len({(metric.about(told), told.get("against")) for entry in entries if (told := entry.result.get(name))}) > 1
    }


def _of(name: str, apart: Mapping[str, Metric], result: Mapping[str, Any]) -> str:
    """What stands beside a figure that was not measured as those of the other runs were."""
    return apart[name].about(result[name]) if name in apart and name in result else ""


def _beware(apart: Mapping[str, Metric]) -> list[str]:
    return [
        f"{metric.figures[0].label} was not measured alike: the runs differ in pictures, in their number or in the "
        "network that looked at them. Do not compare these figures."
        for metric in apart.values()
    ]


def _head(figure: Figure) -> str:
    arrow = {"higher": " ↑", "lower": " ↓", "neither": ""}[figure.better]
    return f"{figure.label}{arrow}"


def _cell(name: str, figure: Figure, result: Mapping[str, Any]) -> str:
    return escape(figure.told(result[name]).replace("+-", "±")) if name in result else ""


def _best(name: str, figure: Figure, entries: Sequence[Entry]) -> list[str]:
    """The labels of the best, all of them where several are equal; none where no value is better than another."""
    there = [(figure.value(entry.result[name]), entry) for entry in entries if name in entry.result]
    told = [(value, entry) for value, entry in there if value is not None]
    values = [value for value, _ in told]
    if figure.better == "neither" or len(set(values)) < 2:
        return []
    best = max(values) if figure.better == "higher" else min(values)
    return [entry.label for value, entry in told if value == best]


def _figures(entry: Entry, metrics: Mapping[str, Metric]) -> str:
    """One row for each figure, with what it says."""
    rows = []
    for name, metric in metrics.items():
        if name not in entry.result:
            continue
        count = metric.count(entry.result[name])
        for place, figure in enumerate(metric.figures):
            what = (
                f'<td class="what" rowspan="{len(metric.figures)}">{escape(metric.says())}</td>' if place == 0 else ""
            )
            pictures = f"{count:,}" if count and place == 0 else ""
            rows.append(
                f'<tr><td>{escape(_head(figure))}</td><td class="number">{_cell(name, figure, entry.result)}</td>'
                f'<td class="number">{pictures}</td>{what}</tr>'
            )
    for name, reason in entry.result.get("left_out", {}).items():
        rows.append(
            f'<tr><td>{escape(name)}</td><td></td><td></td><td class="what">Left out: {escape(reason)}.</td></tr>'
        )
    head = '<tr><th></th><th class="number">figure</th><th class="number">pictures</th><th>what it says</th></tr>'
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _pictures(entry: Entry, *, named: bool) -> str:
    found = []
    captions = {
        PAINTED: "Painted for this evaluation, from captions of real pictures.",
        MEMORISATION: "The painted pictures that are nearest to training pictures, each with its two nearest.",
    }
    for file, caption in captions.items():
        path = entry.folder / file
        if path.is_file() and (file != MEMORISATION or "memorisation" in entry.result):
            told = f"{entry.label}. {caption}" if named else caption
            found.append(
                f'<figure><img alt="{escape(told)}" src="{data_url(path.read_bytes(), "image/png")}">'
                f"<figcaption>{escape(told)}</figcaption></figure>"
            )
    return "".join(found)


def _slices(entry: Entry, metrics: Mapping[str, Metric]) -> str:
    tables = []
    for name, metric in metrics.items():
        result = entry.result.get(name, {})
        figure = metric.sliced[1] if metric.sliced else metric.figures[0]
        for column in ("style", "genre", "artist"):
            if groups := result.get(f"by_{column}"):
                tables.append(f"<div><h3>{escape(figure.label)} by {column}</h3>{_bars(figure, groups)}</div>")
    return f'<div class="slices">{"".join(tables)}</div>' if tables else ""


def _bars(figure: Figure, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """A row with a bar for each kind of picture; those with too few pictures for a figure in a line below."""
    told = {kind: value for kind, group in groups.items() if (value := figure.value(group)) is not None}
    most = 1.0 if figure.percent else max((abs(value) for value in told.values()), default=0.0)
    rows = []
    for kind, value in list(told.items())[:BARS]:
        share = min(100.0, 100 * max(0.0, value) / most) if most else 0.0
        rows.append(
            f'<tr><td>{escape(kind)}</td><td class="number">{escape(figure.told(groups[kind]))}</td>'
            f'<td class="number soft">{_count(figure, groups[kind])}</td>'
            f'<td><div class="bar"><i style="width:{share:.1f}%"></i></div></td></tr>'
        )
    few = [f"{kind} {_count(figure, group)}" for kind, group in groups.items() if kind not in told]
    head = '<tr><th></th><th class="number"></th><th class="number">pictures</th><th></th></tr>'
    table = f"<table>{head}{''.join(rows)}</table>" if rows else ""
    table += f'<p class="soft">{len(told) - BARS} more in evaluation.json.</p>' if len(told) > BARS else ""
    return table + (f'<p class="soft">Too few pictures for a figure: {escape(", ".join(few))}.</p>' if few else "")


def _count(figure: Figure, group: Mapping[str, Any]) -> int:
    return group.get("pictures", group.get(f"{figure.key}_count", 0))


def _noise_levels(entries: Sequence[Entry]) -> str:
    told = {entry.label: entry.result["val_x0"] for entry in entries if "val_x0" in entry.result}
    return log_snr_curve(told) if told else ""


def _made(entries: Sequence[Entry], command: str) -> str:
    rows = "".join(
        f"<tr><td>{escape(entry.label)}</td><td>{escape(str(entry.result['checkpoint']))}</td>"
        f"<td>{escape(str(entry.result['weights']))}</td><td>{escape(painted_with(entry.result))}</td></tr>"
        for entry in entries
    )
    head = "<tr><th></th><th>checkpoint</th><th>weights</th><th>painted with</th></tr>"
    return f'<pre>{escape(command)}</pre><div class="wide"><table>{head}{rows}</table></div>'


def painted_with(result: Mapping[str, Any]) -> str:
    """`dpmpp_2m, 20 steps, guidance 2` of a result."""
    sampler = result["sampler"]
    return f"{sampler.get('name', '')}, {sampler.get('num_steps', '')} steps, guidance {result['guidance_scale']:g}"
