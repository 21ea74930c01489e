"""Which stages of a chain are done: each leaves a mark, and is skipped while what made the mark is what it was."""

from __future__ import annotations

import datetime
import json
import logging
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion_art.files import written

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
