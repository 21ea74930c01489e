"""Two processes that train together, of which the second has a loss of NaN at its third step: `two_guards.py FOLDER`.

Each leaves the sentence with which it ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.utils.data import DataLoader

from diffusion_art.callbacks.guard import NonFiniteGuard
from diffusion_art.errors import UserError
from diffusion_art.launching.fit import quieten
from diffusion_art.tensors import Batch


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(12, 1)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss = self.net(batch.images.flatten(1)).mean()
        return loss * float("nan") if (self.global_rank, batch_idx) == (1, 2) else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Telling(NonFiniteGuard):
    def _stop(self, broken) -> None:
        try:
            super()._stop(broken)
        except UserError as error:
            (self.folder / f"said_{os.getpid()}").write_text(str(error))
            raise


def main(folder: Path) -> None:
    quieten()
    torch.set_num_threads(1)
    batches = [Batch(torch.ones(1, 3, 2, 2), ["a"], [f"key {n}"], [n], n + 1) for n in range(6)]
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        accelerator="cpu", strategy="ddp_fork", devices=2, max_steps=6, callbacks=[Telling(folder=str(folder))], **quiet
    )
    try:
        trainer.fit(Net(), DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    except ProcessRaisedException:
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
