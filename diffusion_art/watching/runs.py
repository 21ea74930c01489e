"""All runs below a folder, kept up to date: what is new is found at each look, and files are read once.

What was changed between runs is told, too, a row for each change: settings that changed together stand in one row.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_art.config import MOVED
from diffusion_art.reports.curves import Curves
from diffusion_art.reports.grids import small
from diffusion_art.watching.folder import METRICS, RunFolder, Summary, is_run

DEPTH = 6  # folders below the one that is watched
SEARCH_S = 2.0  # that the list of runs is good for
POINTS = 1000  # of a curve at the most
FOLLOWED = 24  # runs whose curves are kept
THUMBNAILS = 1024
THUMBNAIL_PX = 160
_NO_RUNS = {"checkpoints", "samples", ".hydra", ".evaluation", "evaluation", "wandb", "mlflow", "tensorboard"}


class Runs:
    """What is asked by a run's id is looked up among those that were found, so no name of a file comes from outside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.RLock()
        self._folders: dict[str, RunFolder] = {}
        self._searched = 0.0
        self._curves: OrderedDict[str, Curves] = OrderedDict()
        self._thumbnails: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()

    def summaries(self) -> list[Summary]:
        """Every run, the one that wrote last first."""
        with self._lock:
            self._search()
            told = [folder.summary() for folder in self._folders.values()]
        return sorted(told, key=lambda summary: (-summary.updated, summary.id))

    def get(self, id: str) -> RunFolder | None:
        with self._lock:
            if id not in self._folders:
                self._search()
            return self._folders.get(id)

    def curves(self, folder: RunFolder, metrics: Sequence[str]) -> dict[str, Any]:
        """Of a run, brought up to date: the asked `curves`, the `clock` (seconds by step), the `names` of all metrics.

        The curves of the runs that were asked for last are kept.
        """
        with self._lock:
            curves = self._curves.pop(folder.id, None) or Curves(folder.path / METRICS, most=POINTS)
            self._curves[folder.id] = curves
            if len(self._curves) > FOLLOWED:
                self._curves.popitem(last=False)
            curves.update()
            names = curves.names
            asked = {name: curves.points(name) for name in metrics if name in names}
            return {"names": names, "clock": curves.clock(), "curves": asked}

    def thumbnail(self, grid: Path) -> bytes:
        """A small WebP of a grid.

        Raises:
            OSError: it is no picture, or is not whole.
        """
        found = grid.stat()
        key = (grid, found.st_size, found.st_mtime_ns)
        with self._lock:
            if key in self._thumbnails:
                return self._thumbnails[key]
        content = small(grid, side_px=THUMBNAIL_PX, quality=70)
        with self._lock:
            self._thumbnails[key] = content
            if len(self._thumbnails) > THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return content

    def _search(self) -> None:
        if time.monotonic() - self._searched < SEARCH_S and self._folders:
            return
        found = _found(self.root)
        self._folders = {id: self._folders.get(id) or RunFolder(path, id) for id, path in found.items()}
        self._searched = time.monotonic()


def _found(root: Path) -> dict[str, Path]:
    """Run folders below `root` by their ids, which are their paths from there. An id that no address can hold, since it
    is not UTF-8, is left out.
    """
    found: dict[str, Path] = {}
    been: set[tuple[int, int]] = set()

    def visit(folder: Path, depth: int) -> None:
        try:
            key = folder.stat()
            if (key.st_dev, key.st_ino) in been:  # a link that leads back
                return
            been.add((key.st_dev, key.st_ino))
            entries = list(os.scandir(folder))
            inner = [one for one in entries if one.name not in _NO_RUNS and one.is_dir()]
        except OSError:
            return
        if is_run({one.name for one in entries}):
            id = folder.relative_to(root).as_posix()
            id = folder.resolve().name if id == "." else id
            if _is_utf8(id):
                found[id] = folder
        if depth < DEPTH:
            for one in inner:
                visit(Path(one.path), depth + 1)

    visit(root, 0)
    return found


def _is_utf8(name: str) -> bool:
    """Whether a name that the file system told is text: bytes that are not come as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def differences(folders: list[RunFolder]) -> dict[str, list[Any]]:
    """The settings in which runs differ, a value for each run, None where it has no such key.

    What a run is called, and what lies in its own folder, is left out.
    """
    configs = [_told(folder.config) for folder in folders]
    keys = dict.fromkeys(key for config in configs for key in config)
    told = {key: [config.get(key) for config in configs] for key in keys}
    return {key: values for key, values in told.items() if any(value != values[0] for value in values)}


def _told(config: dict[str, Any]) -> dict[str, Any]:
    own = str(config.get("paths.run_dir", ""))
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else _today(key, value)
        for key, value in config.items()
        if key not in ("run", "paths.run_dir") and not (own and isinstance(value, str) and value.startswith(own))
    }


def _today(key: str, value: Any) -> Any:
    """A class by the name that it has now, so that moving one is no change of settings."""
    return MOVED.get(value, value) if key.endswith("_target_") and isinstance(value, str) else value


NO_CHANGE = ("callbacks.", "logger.", "paths.")  # what these hold follows from other keys, or changes no picture
OFF = "off"


def changes(folders: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """The settings in which runs differ, a value for each run.

    Keys that tell the runs apart in the same way share a row, named by one of them and the number of the others: no
    figure can say which of them mattered. A part that a run is without is `off`. A key that a run's part does not have
    is left out: it belongs to another class, which the part's own row names, or to another version of the code.
    """
    configs = [folder.config for folder in folders]
    rows: dict[tuple[str, ...], list[tuple[str, list[Any]]]] = {}
    for key in differences(list(folders)):
        if key.startswith(NO_CHANGE) or key == "name":
            continue
        told = [_value_or_off(config, key) for config in configs]
        if None not in told and len({str(value) for value in told}) > 1:
            rows.setdefault(_pattern(told), []).append((key, told))
    chosen = (sorted(alike, key=_plainness) for alike in rows.values())
    return {_named([key for key, _ in alike]): alike[0][1] for alike in chosen}


def _value_or_off(config: Mapping[str, Any], key: str) -> Any:
    """The value, `off` where the whole part is not there, None where only the key is not."""
    if key in config:
        value = config[key]
        if key.endswith("_target_"):
            return str(value).rsplit(".", 1)[-1]
        return OFF if value is None else value
    part = key.rpartition(".")[0]
    while "." in part and not _has(config, part):
        part = part.rpartition(".")[0]
    return None if _has(config, part) else OFF


def _has(config: Mapping[str, Any], part: str) -> bool:
    return not part or any(key.startswith(f"{part}.") for key in config)


def _pattern(values: Sequence[Any]) -> tuple[str, ...]:
    """Equal for keys that split the runs in the same way."""
    first: dict[str, str] = {}
    return tuple(first.setdefault(str(value), str(len(first))) for value in values)


def _plainness(row: tuple[str, list[Any]]) -> tuple[bool, bool, int, str]:
    """Classes first, then what the trainer is told, then the shortest key."""
    key = row[0]
    return not key.endswith("_target_"), not key.startswith("trainer."), key.count("."), key


def _named(keys: Sequence[str]) -> str:
    name = keys[0].removesuffix("._target_")
    return name if len(keys) == 1 else f"{name} (and {len(keys) - 1} more)"
