"""Stages of a chain: each is the command that a person would type, in a process of its own.

One that is done leaves a mark, and is skipped while what made the mark is what it was.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from diffusion_art.errors import UserError
from diffusion_art.files import written
from diffusion_art.stop_signals import handled, stop_signal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One command: `python -m diffusion_art.<command> <words>`. `makes` is the file or folder that it leaves."""

    name: str
    command: str
    words: tuple[str, ...]
    makes: Path | None = None

    @property
    def line(self) -> str:
        return shlex.join(["python", "-m", f"diffusion_art.{self.command}", *self.words])


class Marks:
    """`NAME.json` in `folder` for each finished stage, with the seconds it took.

    A stage is done while its line and the lines of all stages before it are those of its mark, and what it made is
    there. When a stage runs, the marks of those after it are removed: they were of something else.
    """

    def __init__(self, folder: Path, stages: Sequence[Stage]) -> None:
        self.folder = folder
        self.stages = list(stages)

    def is_done(self, stage: Stage) -> bool:
        if stage.makes is not None and not stage.makes.exists():
            return False
        try:
            return json.loads(self._file(stage).read_text("utf-8"))["lines"] == self._lines(stage)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def run(self, stage: Stage, do: Callable[[Stage], None]) -> None:
        """Call `do(stage)` and leave the mark, unless the stage is done."""
        number = f"{self.stages.index(stage) + 1} of {len(self.stages)}, {stage.name}"
        if self.is_done(stage):
            log.info("stage %s: done before, by %s", number, self._file(stage))
            return
        log.info("stage %s: %s", number, stage.line)
        for later in self.stages[self.stages.index(stage) :]:
            self._file(later).unlink(missing_ok=True)
        began = time.monotonic()
        do(stage)
        self._leave(stage, seconds=time.monotonic() - began)

    def _leave(self, stage: Stage, *, seconds: float) -> None:
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        mark = {"lines": self._lines(stage), "seconds": round(seconds, 1), "finished": finished}
        with written(self._file(stage)) as partial:
            partial.write_text(json.dumps(mark, indent=1, ensure_ascii=False) + "\n", "utf-8")

    def _lines(self, stage: Stage) -> list[str]:
        return [each.line for each in self.stages[: self.stages.index(stage) + 1]]

    def _file(self, stage: Stage) -> Path:
        return self.folder / f"{stage.name}.json"


def run(stage: Stage) -> None:
    """Run the stage to its end. A stop signal is passed on, and this process ends as the stage does.

    Raises:
        UserError: the stage failed; it has said why.
    """
    line = [sys.executable, "-m", f"diffusion_art.{stage.command}", *stage.words]
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}  # ours (cli.py)
    child: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in child:
            process.send_signal(number)

    with handled(pass_on):
        child.append(subprocess.Popen(line, env=environment))
        status = child[0].wait()
    if stop_signal(status):
        raise SystemExit(status)
    if status:
        raise UserError(
            f"the stage {stage.name} ended with status {status}; its message is above. "
            "The same command goes on with this stage."
        )
