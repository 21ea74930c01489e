"""Stop before a broken step spoils the weights, and say which pictures were in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_art.errors import UserError
from diffusion_art.tensors import Batch


class NonFiniteGuard(Callback):
    """Ends the run when a loss is NaN or infinite, before the gradients reach the weights.

    The keys, positions and step of the batch go to `non_finite.json` in the run folder. On a GPU the value of a
    step is read one step later, when it is there anyway, so the guard costs no waiting; a checkpoint is never
    written before the value is known.

    Raises:
        UserError: the loss is not finite.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)
        self._batch: Batch | None = None
        self._pending: tuple[Tensor, Batch, int] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        assert self._batch is not None
        self._settle()
        self._pending = (loss.detach(), self._batch, trainer.global_step)
        if loss.device.type == "cpu":
            self._settle()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._settle()

    def _settle(self) -> None:
        if self._pending is None:
            return
        loss, batch, step = self._pending
        self._pending = None
        if torch.isfinite(loss):
            return
        record = {"step": step, "loss": str(loss.item()), "keys": batch.keys, "positions": batch.positions}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "non_finite.json"
        path.write_text(json.dumps(record, indent=1))
        raise UserError(
            f"the loss became {loss.item()} at step {step}, on a batch with the pictures "
            f"{', '.join(batch.keys[:4])}, ... "
            f"(all of them in {path}). The last checkpoint is sound: resume it with a lower optim.lr, or with "
            f"trainer.precision=32-true."
        )
