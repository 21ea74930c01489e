"""Remember how far into the data training has got."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.tensors import Batch
from diffusion_art.training.run.csv_logger import RunCSVLogger
from diffusion_art.training.run.resume import place_loops


class Cursor(Callback):
    """Stores the cursor of the batch just trained on in the data module, whose state the checkpoint saves.

    A callback and not a hook of the module, since checkpoints are written by callbacks, which run first; and the
    cursor of the batch, not a count of the loader's, since loaders prefetch. The counters of Lightning's loops are put
    in their place when a run is resumed, and metrics.csv hears where it goes on.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunCSVLogger):
                logger.go_on_from(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        trainer.datamodule.cursor = batch.cursor  # type: ignore[attr-defined]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        every = trainer.val_check_interval

        def validates(batches: int) -> bool:
            return trainer.enable_validation and isinstance(every, int) and batches % every == 0

        place_loops(checkpoint, batches_per_step=trainer.accumulate_grad_batches, validates=validates)
