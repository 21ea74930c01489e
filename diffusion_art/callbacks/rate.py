"""The learning rate of each step, beside its loss."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.tensors import Batch


class LearningRate(Callback):
    """Logs `train/lr`, the rate that the step is taken with; the optimisers here have one for all their groups."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        # a tensor of the host: Lightning would send a plain number to the device and wait for it to arrive
        rate = torch.tensor(trainer.optimizers[0].param_groups[0]["lr"], dtype=torch.float32)
        pl_module.log("train/lr", rate, batch_size=len(batch))
