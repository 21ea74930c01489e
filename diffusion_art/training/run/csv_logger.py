"""`metrics.csv`: one row per logged step, kept across resumes.

Lightning's own CSV logger starts the file anew when a run is resumed in its folder.
"""

from __future__ import annotations

import csv
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from diffusion_art.files import written
from diffusion_art.reports.curves import CLOCK


class RunCSVLogger(Logger):
    """Writes metrics as columns, the step first; rows of steps that a resumed run takes again are dropped.

    `time/run_s` are the seconds that the run had been trained for when the row was made, in all its sessions together.
    Rows are appended; a new column, or a value for a row already written, makes the file be written again, whole,
    under another name and renamed. A kill loses at most the `flush_every_n` rows not yet written.
    """

    def __init__(self, *, folder: str, flush_every_n: int = 10) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self.flush_every_n = flush_every_n
        self.rows: list[dict[str, Any]] | None = None
        self._first: int | None = None  # label of the first step of this session
        self._columns: list[str] = []  # of the file as it stands
        self._written = 0  # rows of the file that are as they should be
        self._appendable = False
        self._began = time.monotonic()
        self._before_s = 0.0  # of the sessions before this one

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> RunCSVLogger:
        return self

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run folder's `config.yaml` holds them."""

    def go_on_from(self, step: int) -> None:
        """Hear, before anything is logged, how many steps are behind the run: rows from there on are not its own."""
        self._first = step

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        step = int(step or 0)
        rows = self._rows(step)
        if rows and rows[-1]["step"] == step:
            rows[-1].update(metrics)
            self._appendable = self._appendable and len(rows) > self._written
        else:
            run_s = self._before_s + time.monotonic() - self._began
            rows.append({"step": step, CLOCK: round(run_s, 3), **metrics})
        if len(rows) - self._written >= self.flush_every_n:
            self.save()

    def _rows(self, step: int) -> list[dict[str, Any]]:
        if self.rows is None:
            self.rows = []
            first = step + 1 if self._first is None else self._first
            if self.path.exists():
                with self.path.open(newline="") as file:
                    for row in csv.DictReader(file):
                        kept = {name: value for name, value in row.items() if value}
                        if int(kept["step"]) < first:  # the last may lack its validation
                            self.rows.append({**kept, "step": int(kept["step"])})
                self._before_s = float(self.rows[-1].get(CLOCK, 0.0)) if self.rows else 0.0
        return self.rows

    @rank_zero_only
    def save(self) -> None:
        if not self.rows:
            return
        names = {name for row in self.rows for name in row} - {"step"}
        columns = ["step", *sorted(names)]
        if columns == self._columns and self._appendable:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, columns).writerows(self.rows[self._written :])
        else:
            with written(self.path) as partial, partial.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(self.rows)
        self._columns, self._written, self._appendable = columns, len(self.rows), True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
