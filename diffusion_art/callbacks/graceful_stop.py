"""Ctrl-C, SIGTERM and SIGUSR1 end a run between two steps, with a checkpoint."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.training.stopping import stop_after_step, stop_request


class GracefulStop(Callback):
    """Finishes the step in hand, with all its parts, lets the run save itself (RunCheckpoints), and leaves.

    `stopped_by` is the signal's number afterwards, 0 when there was none. With several processes they agree on
    the step.
    """

    def __init__(self) -> None:
        self.stopped_by = 0
        self._listening = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listening.enter_context(stop_request.at_steps())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.strategy.reduce_boolean_decision(bool(stop_request.number), all=False):
            self.stopped_by = stop_request.number or signal.SIGTERM
            stop_after_step(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listening.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._listening.close()


def was_stopped(trainer: Trainer) -> bool:
    """Whether the run ends because of a signal."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    return any(isinstance(callback, GracefulStop) and callback.stopped_by for callback in callbacks)
