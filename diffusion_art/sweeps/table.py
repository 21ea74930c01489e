"""A sweep's trials as a table: `trials.csv` for programs, the same in the report for people."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from diffusion_art.files import written
from diffusion_art.sweeps.study import ERROR

WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "interrupted",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Row:
    """One trial. `value` is its last one, and None where it has none; `steps` those behind it."""

    number: int
    state: str
    value: float | None
    steps: int | None
    params: dict[str, Any]
    error: str
    best: bool = False

    @property
    def label(self) -> str:
        """`#3 lr=0.001 schedule=flow`."""
        return " ".join([f"#{self.number}", *(f"{key}={shown(value)}" for key, value in self.params.items())])


@dataclass(frozen=True)
class Table:
    """All trials of a study, by their numbers."""

    rows: list[Row]
    space: dict[str, BaseDistribution]  # by the short names
    metric: str
    direction: str

    @property
    def ranked(self) -> list[Row]:
        """The best first; what was pruned or failed after what came to its end."""
        sign = -1 if self.direction == "maximize" else 1
        order = list(WORDS.values())
        return sorted(
            self.rows,
            key=lambda row: (order.index(row.state), float("inf") if row.value is None else sign * row.value),
        )


def table_of(study: optuna.Study) -> Table:
    trials = study.get_trials(deepcopy=False)
    names = short([key for trial in trials for key in trial.distributions])
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = study.best_trial.number if complete else None
    return Table(
        rows=[_row(trial, names, best=trial.number == best) for trial in trials],
        space={names[key]: one for trial in trials for key, one in trial.distributions.items()},
        metric=str(study.user_attrs.get("metric", "value")),
        direction=study.direction.name.lower(),
    )


def _row(trial: FrozenTrial, names: dict[str, str], *, best: bool) -> Row:
    return Row(
        number=trial.number,
        state=WORDS[trial.state],
        value=trial.value,
        steps=trial.last_step,
        params={names[key]: value for key, value in trial.params.items()},
        error=trial.user_attrs.get(ERROR, ""),
        best=best,
    )


def short(keys: list[str]) -> dict[str, str]:
    """Each key's last parts, as many as tell it from the others: `optim.lr` is `lr`."""
    keys = list(dict.fromkeys(keys))
    parts = {key: key.lstrip("+").replace("/", ".").split(".") for key in keys}
    names = {}
    for key in keys:
        others = [parts[other] for other in keys if other != key]
        take = next((n for n in range(1, len(parts[key])) if all(o[-n:] != parts[key][-n:] for o in others)), None)
        names[key] = ".".join(parts[key][-take:] if take else parts[key])
    return names


def shown(value: Any) -> str:
    """A value in four digits; a text without its quotes."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).strip("'\"")


def write_csv(table: Table, path: Path) -> None:
    """One line for each trial, its values to the last digit."""
    with written(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", table.metric, "steps", *table.space, "error"])
        for row in table.rows:
            params = [row.params.get(name, "") for name in table.space]
            given = ["" if value is None else value for value in (row.value, row.steps)]
            writer.writerow([row.number, row.state, *given, *params, row.error])


def markdown(table: Table) -> str:
    """The best first, in bold."""
    heads = ["trial", table.metric, "steps", *table.space, "state"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---:|' * (len(heads) - 1)}---|"]
    for row in table.ranked:
        value = "" if row.value is None else f"{row.value:.5g}"
        params = [shown(row.params.get(name, "")) for name in table.space]
        state = f"{row.state}: {row.error}" if row.error else row.state
        cells = [f"[{row.number}]({row.number})", value, "" if row.steps is None else f"{row.steps:,}", *params, state]
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
        lines.append(f"| {' | '.join(f'**{cell}**' if row.best and cell else cell for cell in cells)} |")
    return "\n".join(lines)
