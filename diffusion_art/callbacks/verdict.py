"""At the end of a run to try the code: did the loss fall?"""

from __future__ import annotations

import logging
from collections import deque
from statistics import mean
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.tensors import Batch

log = logging.getLogger(__name__)


class Verdict(Callback):
    """Says what the loss was in the first and the last steps; where it fell by less than `falls_by`, what to look at.

    Each of the two is a mean over `window` steps, or over half of a run that is shorter. It waits for the loss of every
    step, so it belongs in short runs only.
    """

    def __init__(self, *, window: int = 20, falls_by: float = 0.5) -> None:
        self.window = window
        self.falls_by = falls_by
        self.first: list[float] = []
        self.last: deque[float] = deque(maxlen=window)
        self._parts: list[float] = []  # of the step that is being taken

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._parts.append(float(torch.as_tensor(outputs["loss"] if isinstance(outputs, dict) else outputs)))
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        loss = sum(self._parts)  # Lightning has divided each by their number
        self._parts.clear()
        if len(self.first) < self.window:
            self.first.append(loss)
        self.last.append(loss)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not self.last:
            return
        val = trainer.callback_metrics.get("val/loss")
        if len(self.first) == 1:
            told = "" if val is None else f", val/loss {float(val):.4g}"
            log.info("one step and its validation ran: train/loss %.4g%s", self.first[0], told)
            return
        size = min(self.window, max(1, trainer.global_step // 2))
        began, ended = mean(self.first[:size]), mean(list(self.last)[-size:])
        told = f"the loss was {began:.4g} in the first {size} steps, and {ended:.4g} in the last"
        log.info("%s: %s", told, self._said(began, ended))

    def _said(self, began: float, ended: float) -> str:
        if ended <= (1 - self.falls_by) * began:
            return f"it fell by {1 - ended / began:.0%}, so data, network and optimiser work together."
        return (
            "that is too little for a few pictures learnt by heart. Look at optim.lr first, then at the pictures and "
            "captions that the run gets (python -m diffusion_art.shards preview path=...)."
        )
