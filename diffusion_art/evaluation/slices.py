"""A metric by style, genre and artist: the figure of each kind of picture, with how many there were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_art.evaluation.metrics import Metric
from diffusion_art.evaluation.subject import Subject

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
