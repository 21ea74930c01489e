"""Ctrl-C, SIGTERM and SIGUSR1 end a run between two steps, with a checkpoint."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.tensors import Reading
from diffusion_art.training.processes.exchange import Exchange
from diffusion_art.training.run.stopping import stop_after_step, stop_request


class GracefulStop(Callback):
    """Finishes the step in hand, with all its parts, lets the run save itself (RunCheckpoints), and leaves.

    `stopped_by` is the signal's number afterwards, 0 when there was none. Several processes agree on the step: after
    each step a process tells the others, and reads what they told after the step before. So none waits for another
    here, and they end one step later.
    """

    def __init__(self) -> None:
        self.stopped_by = 0
        self._listening = ExitStack()
        self._told: Exchange | Reading | None = None  # after the step before

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listening.enter_context(stop_request.at_steps())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self._asked_in_any(trainer):
            self.stopped_by = stop_request.number or signal.SIGTERM
            stop_after_step(trainer)

    def _asked_in_any(self, trainer: Trainer) -> bool:
        if trainer.world_size == 1:
            return bool(stop_request.number)
        before, self._told = self._told, _telling(bool(stop_request.number), trainer.strategy.root_device)
        return before is not None and any(before.values().tolist())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        told = self._told is not None and any(self._told.values().tolist())
        if told and not self.stopped_by:  # in the last step
            self.stopped_by = stop_request.number or signal.SIGTERM
        self._listening.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._listening.close()


def _telling(asked: bool, device: torch.device) -> Exchange | Reading:
    """Whether any process was asked, read without waiting a step later."""
    told = Exchange(torch.full((1,), float(asked), device=device))
    return told if device.type == "cpu" else Reading(told.values())


def was_stopped(trainer: Trainer) -> bool:
    """Whether the run ends because of a signal."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    return any(isinstance(callback, GracefulStop) and callback.stopped_by for callback in callbacks)
