"""What a run will do and where to look, told as it begins; how long it takes here, told after its first steps."""

from __future__ import annotations

import logging
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.callbacks.caption_following import CaptionFollowing
from diffusion_art.callbacks.report import RunReport
from diffusion_art.callbacks.sample_grid import SampleGrid
from diffusion_art.data.curriculum import Curriculum
from diffusion_art.units import counted, duration

log = logging.getLogger(__name__)

WARM_UP_STEPS = 3  # loaders start and buffers are made: not like the steps that follow


class Forecast(Callback):
    """Logs steps, places and times. `after_steps` are taken before the time is told; a shorter run tells none.

    The time is the median of those steps, times the steps left, and the last sample grid's time for each grid to come.
    Caption following at the end is counted by the grid's time for a picture. Validation is not in it. While the
    `curriculum` has larger pictures to come, it is the time of its present stage, and it is told anew after as many
    steps of the next.
    """

    def __init__(self, *, folder: str, curriculum: Curriculum, after_steps: int = 20) -> None:
        self.folder = Path(folder)
        self.curriculum = curriculum
        self.after_steps = after_steps
        self._end = 0  # the step after which the stage is over
        self._seen: list[tuple[int, float]] = []  # (step, when it was over), of this stage

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            left = trainer.max_steps - trainer.global_step
            later = f" How long it takes is told after {self.after_steps} steps." if left > self.after_steps else ""
            log.info("%s to go.%s%s", counted(left, "step"), _places(trainer, self.folder), later)
            if said := _never_validates(trainer):
                log.info("%s", said)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        at = trainer.global_step
        if at >= self._end:
            self._end = next((end for end in self.curriculum.ends(trainer.max_steps) if end > at), trainer.max_steps)
            self._seen = []
        if len(self._seen) > self.after_steps or not trainer.is_global_zero:
            return
        if not self._seen or self._seen[-1][0] != at:  # else a part of a step
            self._seen.append((at, time.perf_counter()))
        if len(self._seen) == self.after_steps + 1 and at < self._end:
            log.info("%s", self._told(trainer))

    def _told(self, trainer: Trainer) -> str:
        ends = [when for _, when in self._seen[WARM_UP_STEPS:]]
        step_s = statistics.median(later - before for before, later in pairwise(ends))
        at, left, last = trainer.global_step, self._end - trainer.global_step, self._end == trainer.max_steps
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        grids = next((each for each in callbacks if isinstance(each, SampleGrid) and each.prompts), None)
        due = [] if grids is None else [step for step in grids.due_steps(at, trainer.max_steps) if step <= self._end]
        seconds = left * step_s + (0.0 if grids is None else len(due) * grids.took_s)
        asked = sum(each.asked for each in callbacks if isinstance(each, CaptionFollowing)) if last else 0
        asked_s = asked * grids.took_s / len(grids.prompts) if grids is not None else 0.0
        seconds += asked_s
        far = "to go" if last else f"to step {self._end:,}"
        told = f"about {duration(seconds)} {far}: {left:,} steps of {step_s:.2g} s"
        if grids is not None and due:
            told += f", sample grids of {grids.took_s:.2g} s at {len(due)} of them"
        if asked:
            takes = f"about {duration(asked_s)}" if asked_s else "and its time is not in that"
            told += f", caption following of {asked:,} pictures at the end, {takes}"
        if grids is not None and due:
            next_s = (due[0] - at) * step_s + grids.took_s
            told += f". The next grid is there in {duration(next_s)}, after step {due[0]:,}."
        return told if last else f"{told.removesuffix('.')}. Then pictures are larger, and steps take longer."


def _places(trainer: Trainer, folder: Path) -> str:
    """Where to look, as far as there will be something: grids only where a callback paints any."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    paints = any(hasattr(one, "painted_at") and getattr(one, "prompts", True) for one in callbacks)
    told = [f"at {folder / 'samples'} as it trains"] if paints else []
    told += [f"at {folder / 'report.html'}"] if any(isinstance(one, RunReport) for one in callbacks) else []
    return f" Look {', and '.join(told)}." if told else ""


def _never_validates(trainer: Trainer) -> str | None:
    """A sentence where there are pictures to validate on and the run ends before it would."""
    batches = getattr(trainer, "val_check_interval", None)  # which Lightning lacks where it is a time
    if not trainer.enable_validation or not isinstance(batches, int):
        return None
    every = batches // trainer.accumulate_grad_batches
    if trainer.max_steps < 0 or every <= trainer.max_steps:
        return None
    steps = counted(trainer.max_steps, "step")
    return (
        f"nothing is validated: trainer.val_check_interval={every} is more than the {steps} of the run. "
        "Give fewer steps, or a fraction: trainer.val_check_interval=0.5 validates after each half of the run."
    )
