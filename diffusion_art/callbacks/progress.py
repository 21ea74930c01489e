"""The progress bar of a run: one bar from the first step to the last, with loss, images/s and data wait."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from diffusion_art.callbacks.throughput import Throughput


class Progress(RichProgressBar):
    """Lightning's rich bar; its total is the run's number of batches, so the time left is that of the whole run."""

    @property
    def total_train_batches(self) -> int | float:
        return self.trainer.num_training_batches

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = trainer.callback_metrics
        items: dict[str, Any] = {}
        for name, label in (("train/loss", "loss"), ("val/loss", "val")):
            if name in shown:
                items[label] = f"{float(shown[name]):.4f}"
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Throughput) and callback.images_per_s:
                items["images/s"] = f"{callback.images_per_s:.0f}"
                items["wait"] = f"{100 * callback.data_wait_share:.1f}%"
        return items

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"
