"""Several values of a setting: every combination of them is measured, and drawn as curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

AXES = ("checkpoint", "sampler", "num_steps", "guidance_scale")  # what may be given as a list


def swept(asked: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The settings that are lists, with their values, each once."""
    return {axis: list(dict.fromkeys(asked[axis])) for axis in AXES if isinstance(asked[axis], list)}


def points(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last axis fastest: `[{"num_steps": 5, "guidance_scale": 1}, ...]`."""
    return [dict(zip(axes, values)) for values in product(*axes.values())]


def label(point: Mapping[str, Any]) -> str:
    """`5 steps, guidance 2` of a point."""
    told = {"checkpoint": "{}", "sampler": "{}", "num_steps": "{} steps", "guidance_scale": "guidance {:g}"}
    return ", ".join(told[axis].format(value) for axis, value in point.items())


def folder_name(point: Mapping[str, Any]) -> str:
    """`num_steps=5,guidance_scale=2` of a point."""
    return ",".join(f"{axis}={re.sub(r'[^A-Za-z0-9._-]', '_', str(value))}" for axis, value in point.items())


def abscissa(axes: Mapping[str, Sequence[Any]]) -> str:
    """The axis that curves are drawn over: the one of most values among those that are numbers."""
    numbers = [axis for axis in axes if axis != "sampler"] or list(axes)
    return max(numbers, key=lambda axis: len(axes[axis]))


def place(axis: str, value: Any) -> float | str:
    """Where a value stands on its axis: of a checkpoint its step, if its name tells."""
    if axis == "checkpoint":
        step = re.search(r"step_(\d+)", str(value))
        return int(step[1]) if step else str(value)
    return value if isinstance(value, str) else float(value)
