"""Stop before a broken step spoils the weights, and say which pictures were in it."""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from diffusion_art.checkpoints import has_checkpoints
from diffusion_art.errors import UserError
from diffusion_art.tensors import Batch, Reading
from diffusion_art.training.optim import scales_in_step
from diffusion_art.training.processes.exchange import Exchange

LATEST = 8  # batches after which a verdict is waited for, should it not have arrived


class NonFiniteGuard(Callback):
    """Ends the run when a loss is NaN or infinite, before the gradients reach the weights.

    The keys, positions and step of the batch go to `non_finite.json` in the run folder. On a CPU the loss is looked at
    before its gradients are computed; of several processes each hears of the others' meanwhile, and looks after it.

    On a CUDA device looking would wait for all work queued before. So the device itself checks the loss and, as the
    optimiser steps, the norm of the gradients. From the first value on that is not finite it takes no step: fused
    optimisers and Muon leave every weight as it was. The host reads the verdicts when they have arrived, a few batches
    later, and then ends the run. No checkpoint is written before the verdicts of all its steps are known; that is the
    only time the host waits. Another optimiser (`fused: false`) takes the broken step, and no checkpoint holds it.

    Of several processes all end at the same step, whichever of them had the broken loss; each tells its own pictures.

    Raises:
        UserError: the loss is not finite; on a CUDA device, or the norm of the gradients.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)
        self.verdicts: Verdicts | None = None  # on a CUDA device
        self._batch: Batch | None = None
        self._loss = torch.zeros(())  # on a CPU, that of the batch, and whether any process has a broken one
        self._heard: Exchange | None = None
        self._step, self._rank, self._alone = 0, 0, True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        assert self._batch is not None
        self._step, self._rank, self._alone = trainer.global_step, trainer.global_rank, trainer.world_size == 1
        if loss.device.type != "cuda":
            self._loss = loss.detach()
            broken = (~self._loss.isfinite()).float()
            if self._alone:
                self._stop_if(broken)
            else:
                self._heard = Exchange(broken, greatest=True)
            return
        self.verdicts = self.verdicts or Verdicts(loss.device)
        self.verdicts.check(loss)
        if not self._alone:
            Exchange(self.verdicts.flag, greatest=True).values()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        heard, self._heard = self._heard, None
        if heard is not None:
            self._stop_if(heard.values())

    def _stop_if(self, broken: Float[Tensor, ""]) -> None:
        assert self._batch is not None
        if broken:
            self._stop(Broken(self._loss.item(), self._batch, self._step))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if self.verdicts and getattr(trainer.precision_plugin, "scaler", None) is None:
            self.verdicts.hold_back(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.verdicts:
            self.verdicts.send(batch, self._step)
            self._stop(self.verdicts.broken(latest=LATEST, early=self._alone))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._settle()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._settle()

    def _settle(self) -> None:
        """Wait for the verdicts of all steps so far."""
        if self.verdicts:
            self._stop(self.verdicts.broken(latest=0))

    def _helps(self) -> str:
        saved = has_checkpoints(self.folder)
        return "The last checkpoint is sound: resume it" if saved else "Nothing was saved before that: start again"

    def _stop(self, broken: Broken | None) -> None:
        if broken is None:
            return
        loss, batch = broken.loss, broken.batch
        record = {"step": broken.step, "loss": str(loss), "keys": batch.keys, "positions": batch.positions}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / (f"non_finite_{self._rank}.json" if self._rank else "non_finite.json")
        path.write_text(json.dumps(record, indent=1))
        here = self._alone or not math.isfinite(loss)
        what = broken.what if here else "the loss or the gradients of another process were not finite"
        raise UserError(
            f"{what} at step {broken.step}, on a batch with the pictures {', '.join(batch.keys[:4])}, ... "
            f"(all of them in {path}). {self._helps()} with a lower optim.lr, or with trainer.precision=32-true."
        )


@dataclass
class Broken:
    """The batch at which a run broke; its loss may be finite where the gradients are not."""

    loss: float
    batch: Batch
    step: int

    @property
    def what(self) -> str:
        if math.isfinite(self.loss):
            return f"the gradients of a loss of {self.loss:.4g} were not finite"
        return f"the loss became {self.loss}"


class Verdicts:
    """Whether all was finite so far, kept on the device and read without waiting.

    `flag` is 0.0, and 1.0 from the first broken batch on. It is the `found_inf` of an optimiser.
    """

    def __init__(self, device: torch.device) -> None:
        self.flag = torch.zeros((), dtype=torch.float32, device=device)
        self._loss = self.flag
        self._sent: deque[tuple[Reading, Batch, int]] = deque()

    def check(self, loss: Tensor) -> None:
        """Hear of a batch's loss: []."""
        self._loss = loss.detach().float()
        self.flag.logical_or_(~self._loss.isfinite())

    def hold_back(self, optimizer: Optimizer) -> None:
        """From now on the optimiser leaves weights alone while the flag is 1, if it can."""
        if scales_in_step(optimizer):
            optimizer.found_inf = self.flag  # type: ignore[attr-defined]

    def send(self, batch: Batch, step: int) -> None:
        """Let the verdict on a batch set out for the host."""
        self._sent.append((Reading(torch.stack([self._loss, 1.0 - self.flag])), batch, step))

    def broken(self, *, latest: int, early: bool = True) -> Broken | None:
        """The first broken batch among the verdicts that have arrived. All but the `latest` are waited for, and these
        are not looked at unless `early`: they do not arrive at the same step in all processes.
        """
        while self._sent and (len(self._sent) > latest or (early and self._sent[0][0].ready)):
            reading, batch, step = self._sent.popleft()
            loss, sound = reading.values().tolist()
            if not sound:
                return Broken(loss, batch, step)
        return None
