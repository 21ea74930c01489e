"""What a run folder tells of its run: how it stands, its newest figures, its settings."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffusion_art.cli import FAILED_FILE
from diffusion_art.config import unescaped
from diffusion_art.files import without_secrets
from diffusion_art.reports.curves import CLOCK, STEP, columns_of, row_of
from diffusion_art.reports.grids import grids_of
from diffusion_art.training.run.run_folder import LOCK_FILE, has_finished, is_held

METRICS, CONFIG, LOG, REPORT, PAGE = "metrics.csv", "config.yaml", "train.log", "report.md", "report.html"
SHOWN = ("train/loss", "val/loss", "time/images_per_s", CLOCK)  # newest values in the list of runs
_TAIL_BYTES = (16_384, 262_144)  # of metrics.csv, read from its end until all of them are found
_LOG_TAIL_BYTES = 8_192
_SILENT_S = 120  # where locks tell nothing, a run that wrote since then is running
_LATE_S = 10  # that rows may be written after the report
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (\w+) [\w.]+: (.*)$", re.MULTILINE)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Summary:
    """A line in the list of runs. `reason` says more of a run that failed or was stopped."""

    id: str
    state: str  # running, finished, stopped, failed
    reason: str
    step: int | None
    max_steps: int | None
    figures: dict[str, float]  # of SHOWN, those there are
    grid: int | None  # step of the newest
    report: bool  # whether it has a report.html
    updated: float  # when it last wrote something, as Unix time


class RunFolder:
    """One run folder. What was read of a file is kept until the file changes."""

    def __init__(self, path: Path, id: str) -> None:
        self.path, self.id = path, id
        self._kept: dict[str, tuple[Any, Any]] = {}

    def summary(self) -> Summary:
        stamps = {name: self._stamp(name) for name in (METRICS, CONFIG, LOG, REPORT, FAILED_FILE, "samples")}
        newest: dict[str, float] = self._fresh("newest", stamps[METRICS], lambda: newest_values(self.path / METRICS))
        state, reason = self._state(stamps)
        grids: dict[int, Path] = self._fresh("grids", stamps["samples"], lambda: grids_of(self.path))
        step = newest.get(STEP)
        return Summary(
            id=self.id,
            state=state,
            reason=reason,
            step=None if step is None else int(step) + 1,  # rows carry the step before the update
            max_steps=self._max_steps(stamps[CONFIG]),
            figures={name: newest[name] for name in SHOWN if name in newest},
            grid=max(grids, default=None),
            report=self._stamp(PAGE) is not None,
            updated=max((stamp[1] / 1e9 for stamp in stamps.values() if stamp), default=0.0),
        )

    @property
    def grids(self) -> dict[int, Path]:
        """The sample grids by step."""
        return self._fresh("grids", self._stamp("samples"), lambda: grids_of(self.path))

    @property
    def config(self) -> dict[str, Any]:
        """The settings by dotted key, without secrets; empty where the run has written none."""
        return self._fresh("config", self._stamp(CONFIG), lambda: settings_of(self.path / CONFIG))

    def _max_steps(self, stamp: Any) -> int | None:
        asked = self._fresh("max_steps", stamp, lambda: _max_steps(self.path / CONFIG))
        return asked if asked is not None and asked > 0 else None

    def _state(self, stamps: dict[str, Any]) -> tuple[str, str]:
        """As the folder tells: a lock that is held, a last word in the log, a mark or a report at the end."""
        held = is_held(self.path)
        wrote = stamps[METRICS]
        if held or (held is None and wrote and time.time() - wrote[1] / 1e9 < _SILENT_S):
            return "running", ""
        if has_finished(self.path):  # what was refused there since is no fault of the run
            return "finished", ""
        if stamps[FAILED_FILE]:
            return "failed", _text(self.path / FAILED_FILE)
        level, said = self._fresh("log", stamps[LOG], lambda: last_word(self.path / LOG))
        if level in ("ERROR", "CRITICAL"):
            return "failed", said
        if ": stopped " in said:
            return "stopped", said
        report = stamps[REPORT]
        if report and (not wrote or report[1] > wrote[1] - _LATE_S * 1e9):
            return "finished", ""
        return "stopped", "it ended without a word: killed, or by an error that its terminal showed"

    def _stamp(self, name: str) -> tuple[int, int] | None:
        """Size and time of a file or folder; None where it is not there."""
        try:
            found = (self.path / name).stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    def _fresh(self, name: str, stamp: Any, read: Any) -> Any:
        kept = self._kept.get(name)
        if kept is None or kept[0] != stamp:
            kept = self._kept[name] = (stamp, read())
        return kept[1]


def is_run(names: Sequence[str] | set[str]) -> bool:
    """Whether a folder with files of these names is a run's."""
    return METRICS in names or LOCK_FILE in names


def newest_values(file: Path, wanted: Sequence[str] = SHOWN) -> dict[str, float]:
    """The step of the last row, and the newest value of each wanted metric near the end of the file."""
    found: dict[str, float] = {}
    try:
        with file.open("rb") as source:
            columns = columns_of(source.readline())
            there = [name for name in wanted if name in columns]
            size = source.seek(0, 2)
            for tail_bytes in _TAIL_BYTES:
                source.seek(max(0, size - tail_bytes))
                lines = source.read().split(b"\n")[
                    1:-1
                ]  # the first is cut, or the head; after the last end comes nothing
                for line in reversed(lines):
                    row = row_of(columns, line)
                    found = {
                        name: row[name] for name in (STEP, *there) if math.isfinite(row.get(name, math.nan))
                    } | found
                    if len(found) == len(there) + 1:
                        return found
                if tail_bytes >= size:
                    break
    except OSError:
        pass
    return found


def last_word(file: Path) -> tuple[str, str]:
    """Level and text of the last line of a log."""
    try:
        with file.open("rb") as source:
            source.seek(max(0, source.seek(0, 2) - _LOG_TAIL_BYTES))
            said = _LOG_LINE.findall(source.read().decode("utf-8", "replace"))
    except OSError:
        return "", ""
    return said[-1] if said else ("", "")


def settings_of(file: Path) -> dict[str, Any]:
    """A config.yaml as one level of dotted keys, without secrets."""
    try:
        config = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return dict(_flat(without_secrets(config))) if isinstance(config, dict) else {}


def _flat(node: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    told: list[tuple[str, Any]] = []
    for key, value in node.items():
        if isinstance(value, dict) and value:
            told += _flat(value, f"{prefix}{key}.")
        else:
            told.append((f"{prefix}{key}", _read(value)))
    return told


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return [_read(each) for each in value]
    return unescaped(value) if isinstance(value, str) else value


def _max_steps(file: Path) -> int | None:
    """`trainer.max_steps` of a config.yaml, found without parsing the rest of it."""
    found = re.search(r"^trainer:\n(?:[ #].*\n)*?  max_steps: (-?\d+)$", _text(file), re.MULTILINE)
    return int(found[1]) if found else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
