"""Snapshots of the power-function averages, of which any other average can be made when the run is over."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_art.accel.shares import gathered, is_shared
from diffusion_art.devices import DTYPES, precision_named
from diffusion_art.errors import UserError
from diffusion_art.files import PARTIAL
from diffusion_art.training.averages.posthoc import PRECISIONS, snapshot_path, snapshot_step, write_snapshot
from diffusion_art.training.run.limits import interval

log = logging.getLogger(__name__)

PARTS = 50  # snapshots of a run: widths from 0.04 to 0.2 then come back with an error below half a percent


class AverageSnapshots(Callback):
    """Writes `step_00001000.safetensors` every `every_n_steps` steps and at the end (posthoc.py has the layout).

    `every_n_steps=None` is a fiftieth of the run, 0 only its end. `dtype` is fp16 or fp32. A kill at any moment
    leaves whole files; a resumed run first removes the snapshots of steps that it is going to take again.

    Raises:
        UserError: the run tracks no power-function average.
    """

    def __init__(self, *, folder: str, every_n_steps: int | None = None, dtype: str = "fp16") -> None:
        dtype = precision_named(dtype)
        if dtype not in PRECISIONS:
            raise UserError(f"callbacks.snapshots.dtype={dtype} is not one of {', '.join(PRECISIONS)}.")
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.dtype = dtype
        self._saved = 0  # the step of the newest

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        if not module.ema.sigma_rel:
            raise UserError("snapshots need power-function averages: set ema.sigma_rel=[0.05,0.1], or ema=post_hoc.")
        if not trainer.is_global_zero:
            return
        for path in self.folder.glob("step_*"):
            if path.suffix in (PARTIAL, ".part") or snapshot_step(path) > trainer.global_step:
                path.unlink()
        self._announce(trainer, module)

    def _announce(self, trainer: Trainer, module: Any) -> None:
        """Say what the snapshots will take, and whether there is room."""
        weights = sum(value.numel() for value in module.ema.shadow.values())
        size = weights * DTYPES[self.dtype].itemsize * len(module.ema.sigma_rel)
        every = self._interval(trainer)
        count = max(0, trainer.max_steps - trainer.global_step) // every if every else 1
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        text, values = "%d snapshots of %.3g GB each are to come, in %s", [count, size / 1e9, self.folder]
        if count * size > free:
            text += ", where %.3g GB are free: try a larger callbacks.snapshots.every_n_steps"
            values.append(free / 1e9)
        log.log(logging.WARNING if count * size > free else logging.INFO, text, *values)

    def _interval(self, trainer: Trainer) -> int | None:
        if self.every_n_steps is None:
            return max(1, trainer.max_steps // PARTS)
        return interval(self.every_n_steps)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        every = self._interval(trainer)
        if stepped and every and trainer.global_step % every == 0:
            self.save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, pl_module)

    def save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write this step's snapshot, unless it is there."""
        step = trainer.global_step
        if step in (0, self._saved):
            return
        self._saved = step
        ema: Any = pl_module.ema
        first = trainer.is_global_zero
        averages = {name: _whole(ema.averages[name], keep=first) for name in ema.sigma_rel}
        if first and not snapshot_path(self.folder, step).exists():
            write_snapshot(
                self.folder, averages, widths=ema.sigma_rel, step=step, updates=ema.updates, dtype=self.dtype
            )


def _whole(average: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The whole weights of an average, where processes share them out, on the CPU; none where this one does not `keep`
    them. One weight at a time is gathered, since a GPU may not have room for all of them.
    """
    kept = {}
    for name, value in average.items():
        found = gathered(value)
        if keep:
            kept[name] = found.cpu() if is_shared(value) else found
    return kept
