"""Sides as processes of their own: what they are called, how they are started, how they answer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

BENCHMARKS = Path(__file__).parents[1]


class SideError(Exception):
    """A side ended without a figure; the text is the last that it said."""


@dataclass
class Side:
    """`module` with `arguments` under `python`; `workers` is set when it has loader workers to choose."""

    name: str
    module: str
    arguments: Mapping[str, Any]
    python: str = sys.executable
    workers: int | None = None
    tree: Path = BENCHMARKS.parent  # the files it runs
    rates: list[float] = field(default_factory=list)

    def run(self, **timing: float) -> float:
        """The rate of one run."""
        chosen = {} if self.workers is None else {"workers": self.workers}
        return run(self.python, self.module, {**self.arguments, **chosen, **timing}, tree=self.tree)["rate"]


def run(
    python: str,
    module: str,
    arguments: Mapping[str, Any],
    *,
    limit_s: float = 180,
    tree: Path = BENCHMARKS.parent,
) -> dict[str, float]:
    """What `python -m module '{arguments}'` reports, of the files in `tree`.

    Raises:
        SideError: it failed or was not done in `limit_s`.
    """
    paths = f"{tree / 'benchmarks'}{os.pathsep}{tree}"
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:  # pipes outlive the process
        process = subprocess.Popen(
            [python, "-m", module, json.dumps(arguments)],
            env=environment,
            cwd=None if tree == BENCHMARKS.parent else tree,  # `-m` looks there first
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise SideError(f"{module} did not end within {limit_s:g} s") from None
        finally:
            _end_all(process)
        lines, said = (_lines(file) for file in (output, errors))
    if lines and lines[-1].startswith("{"):
        return json.loads(lines[-1])
    raise SideError((said or [f"exit status {process.returncode}"])[-1])


def _lines(file: IO[str]) -> list[str]:
    file.seek(0)
    return file.read().strip().splitlines()


def _end_all(process: subprocess.Popen) -> None:
    """End what is left of the side's processes, loader workers that were in the middle of a batch among them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
