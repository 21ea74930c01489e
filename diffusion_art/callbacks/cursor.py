"""Remember how far into the data training has got."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.tensors import Batch


class Cursor(Callback):
    """Stores the cursor of the batch just trained on in the data module, whose state the checkpoint saves.

    A callback and not a hook of the module, since checkpoints are written by callbacks, which run first; and the
    cursor of the batch, not a count of the loader's, since loaders prefetch.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        trainer.datamodule.cursor = batch.cursor  # type: ignore[attr-defined]
