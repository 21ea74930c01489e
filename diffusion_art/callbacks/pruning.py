"""Trials of a sweep that fall behind end early."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.pruners import BasePruner

from diffusion_art.sweeps.study import Progress

log = logging.getLogger(__name__)


class Pruning(Callback):
    """Tells the sweep's study the `monitor` of each validation, and ends the run where the pruner says so.

    A pruned run ends as others do: with its checkpoint, its last sample grid and its report. With several processes the
    first one asks, and all of them end at the same step.

    Raises:
        UserError: the run is no trial of a sweep.
    """

    def __init__(self, *, folder: str, monitor: str, pruner: BasePruner) -> None:
        self.folder = Path(folder)
        self.monitor = monitor
        self.pruner = pruner
        self.pruned_at: int | None = None
        self._progress: Progress | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._progress = Progress(self.folder, pruner=self.pruner)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.global_step == 0:
            return
        if trainer.strategy.broadcast(self._falls_behind(trainer)):
            self.pruned_at = trainer.global_step
            trainer.should_stop = True

    def _falls_behind(self, trainer: Trainer) -> bool:
        value = trainer.callback_metrics.get(self.monitor)
        if self._progress is None or value is None:
            return False
        step = trainer.global_step
        if not self._progress.prunes(float(value), step=step) or step >= trainer.max_steps:
            return False
        self._progress.pruned(step)
        log.info("pruned at step %d: %s is %.4g, and other trials had come further by then", step, self.monitor, value)
        return True
