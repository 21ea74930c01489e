"""`trainer.max_time`: a run ends when its time is over, between two steps."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from diffusion_art.training.run.stopping import stop_after_step


class StepTimer(Timer):
    """Lightning's Timer, which looks at the clock after a whole step and never between its parts."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            if trainer.should_stop:
                stop_after_step(trainer)
