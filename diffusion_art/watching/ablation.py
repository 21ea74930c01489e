"""What was changed between runs, a row for each change: settings that changed together stand in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_art.watching.folder import RunFolder
from diffusion_art.watching.runs import differences

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
        told = [_told(config, key) for config in configs]
        if None not in told and len({str(value) for value in told}) > 1:
            rows.setdefault(_pattern(told), []).append((key, told))
    chosen = (sorted(alike, key=_plainness) for alike in rows.values())
    return {_named([key for key, _ in alike]): alike[0][1] for alike in chosen}


def _told(config: Mapping[str, Any], key: str) -> Any:
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
