"""All metrics over one subject, each kept as soon as it is finished, and by style, genre and artist."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.evaluation.metrics import Metric
from diffusion_art.evaluation.metrics.metric import AgainstReal
from diffusion_art.evaluation.report import PAINTED
from diffusion_art.evaluation.subject import Subject
from diffusion_art.images import save_grid

log = logging.getLogger(__name__)

SHOWN = 16  # pictures of an evaluation that its report shows


def measured(
    subject: Subject,
    metrics: Mapping[str, Metric],
    settings: Mapping[str, Any],
    *,
    slices: Sequence[str],
    keep_pictures: bool = False,
) -> dict[str, Any]:
    """What the metrics say of one model, painted in one way, with how it was painted. `settings` are their nodes.

    Raises:
        UserError: none of the metrics fits the run, or there are too few pictures for one.
    """
    left_out = _left_out(metrics, subject)
    result = dict(subject.story)
    log.info("%s", _plan([metric for name, metric in metrics.items() if name not in left_out], subject, metrics))
    for name, metric in metrics.items():
        if name in left_out:
            continue
        result[name] = _result(name, metric, subject, settings.get(name), slices)
        log.info("%s", metric.summary(result[name]))
    shown = subject.some_painted(SHOWN)
    if shown is not None and subject.folder is not None:
        save_grid(shown.images, shown.captions, subject.folder / PAINTED, columns=8, metadata=subject.story)
    if subject.work is not None and not keep_pictures:
        subject.work.drop_pictures()
    return result | ({"left_out": left_out} if left_out else {})


def _plan(chosen: Sequence[Metric], subject: Subject, names: Mapping[str, Metric]) -> str:
    """`painting 116 pictures, 20 steps each; then kid, val_x0`, before the long work."""
    of_captions = max((metric.pictures for metric in chosen if isinstance(metric, AgainstReal)), default=0)
    count = of_captions + sum(metric.own_pictures for metric in chosen)
    told = ", ".join(name for name, metric in names.items() if metric in chosen)
    if not count:
        return f"measuring {told}"
    return f"painting {count:,} pictures, {subject.story['sampler']['num_steps']} steps each; then {told}"


def _result(name: str, metric: Metric, subject: Subject, settings: Any, slices: Sequence[str]) -> dict[str, Any]:
    def measure() -> dict[str, Any]:
        result = metric.measure(subject)
        if metric.against is not None:
            result["against"] = getattr(subject, metric.against).digest
        count = metric.count(result)
        return result | (by_column(metric, subject, count, slices) if count else {})

    return subject.work.metric(name, settings, measure) if subject.work else measure()


def _left_out(metrics: Mapping[str, Metric], subject: Subject) -> dict[str, str]:
    """The metrics that do not fit the run, each with the reason, which is said. UserError where none is left."""
    refusals = {name: metric.refusal(subject) for name, metric in metrics.items()}
    left_out = {name: reason for name, reason in refusals.items() if reason is not None}
    if left_out and len(left_out) == len(metrics):
        raise UserError(f"{next(iter(left_out.values()))}. Measure others: 'metrics=[kid,val_x0]'.")
    for reason in left_out.values():
        log.warning("%s: it is left out", reason)
    return left_out


LARGEST = 40  # of a column with more values, such as artist, the commonest


def by_column(metric: Metric, subject: Subject, count: int, columns: Sequence[str]) -> dict[str, Any]:
    """{"by_style": {"Cubism": {"kid": 0.01, "pictures": 64}, ...}, ...} over the first `count` pictures.

    A slice of fewer pictures than the metric takes has its number only. Columns that the data does not have are left
    out.
    """
    if metric.sliced is None:
        return {}
    least, figure = metric.sliced
    rows = rows_by_column(subject.real.columns(count), columns)
    return {
        f"by_{column}": {
            value: {figure.key: metric.of_rows(subject, chosen) if len(chosen) >= least else None}
            | {"pictures": len(chosen)}
            for value, chosen in groups.items()
        }
        for column, groups in rows.items()
    }


def rows_by_column(told: Sequence[Mapping[str, str]], columns: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Column -> value -> rows, the commonest values first."""
    found: dict[str, dict[str, list[int]]] = {column: defaultdict(list) for column in columns}
    for row, picture in enumerate(told):
        for column in columns:
            if value := picture.get(column):
                found[column][value].append(row)
    return {
        column: dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))[:LARGEST])
        for column, groups in found.items()
        if groups
    }
