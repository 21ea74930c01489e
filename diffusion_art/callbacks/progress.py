"""The progress bar of a run: one bar from the first step to the last, with loss, images/s and data wait."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from diffusion_art.callbacks.throughput import Throughput
from diffusion_art.devices import Reading


class Progress(RichProgressBar):
    """Lightning's rich bar; its total is the run's number of batches, so the time left is that of the whole run.

    On a CUDA device the loss shown is the newest that has arrived, some steps old: nothing waits for it.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._coming: dict[str, Reading] = {}
        self._known: dict[str, float] = {}

    @property
    def total_train_batches(self) -> int | float:
        return self.trainer.num_training_batches

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = trainer.callback_metrics
        items: dict[str, Any] = {}
        for name, label in (("train/loss", "loss"), ("val/loss", "val")):
            if name in shown and (value := self._newest(name, shown[name])) is not None:
                items[label] = f"{value:.4f}"
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Throughput) and callback.images_per_s:
                items["images/s"] = f"{callback.images_per_s:.0f}"
                items["wait"] = f"{100 * callback.data_wait_share:.1f}%"
        return items

    def _newest(self, name: str, value: Tensor) -> float | None:
        """The last value of that name that is on the host; `value` sets out for it if no other is on its way."""
        if name not in self._coming:
            self._coming[name] = Reading(value)
        if self._coming[name].ready:
            self._known[name] = float(self._coming.pop(name).values())
        return self._known.get(name)

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"
