"""How fast a run trains: pictures per second, the wait for them, the rate of each step, and the progress bar."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from diffusion_art.tensors import Batch, Reading
from diffusion_art.training.run.limits import interval

log = logging.getLogger(__name__)


class Throughput(Callback):
    """Logs speed and place every `every_n_steps` steps, never if that is 0.

    `time/images_per_s`, `time/data_wait_share`, `image_size_px` of the batch and `images_seen`. Every row has `epoch`,
    the passes over the data so far. The time of sample grids, validation and checkpoints is left out. Where waiting
    takes more than `warn_share` of a window, a line says so, once per run, with what to try. The first window, in which
    workers start, is not judged.
    """

    def __init__(self, *, every_n_steps: int | None = 20, warn_share: float = 0.05) -> None:
        self.every_n_steps = interval(every_n_steps)
        self.warn_share = warn_share
        self.images_per_s = 0.0
        self.data_wait_share = 0.0
        self._images = 0
        self._busy_s = 0.0
        self._wait_s = 0.0
        self._began = 0.0
        self._windows = 0
        self._warned = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._wait_s = self._waited(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._busy_s += time.perf_counter() - self._began
        self._images += len(batch) * trainer.world_size
        self._log_epoch(trainer, pl_module)
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not self.every_n_steps or not stepped or trainer.global_step % self.every_n_steps:
            return
        waited = self._waited(trainer) - self._wait_s
        total = self._busy_s + waited
        self.images_per_s = self._images / total if total else 0.0
        self.data_wait_share = waited / total if total else 0.0
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        values = {
            "time/images_per_s": self.images_per_s,
            "time/data_wait_share": self.data_wait_share,
            "image_size_px": math.sqrt(batch.images.shape[-2] * batch.images.shape[-1]),
            "images_seen": float(batch.cursor * datamodule.global_batch_size),
        }
        # tensors of the host: Lightning would send plain numbers to the device and wait for each to arrive
        on_host = {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
        pl_module.log_dict(on_host, rank_zero_only=True)
        self._judge(trainer)
        self._images, self._busy_s, self._wait_s = 0, 0.0, self._waited(trainer)
        self._windows += 1

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log_epoch(trainer, pl_module)

    @staticmethod
    def _log_epoch(trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning adds an `epoch` of its own, always 0, to every row that has none."""
        if not trainer.sanity_checking:
            epoch = torch.tensor(trainer.datamodule.epoch, dtype=torch.float32)  # type: ignore[attr-defined]
            pl_module.log("epoch", epoch, rank_zero_only=True)

    def _judge(self, trainer: Trainer) -> None:
        if self._warned or self._windows == 0 or self.data_wait_share <= self.warn_share:
            return
        self._warned = True
        workers = trainer.datamodule.num_workers  # type: ignore[attr-defined]
        log.warning(
            "training waited for data %.0f %% of the time (%.0f images/s). Try data.num_workers=%d, "
            "data.window=8, or a "
            "server nearer by.",
            100 * self.data_wait_share,
            self.images_per_s,
            workers + 2,
        )

    @staticmethod
    def _waited(trainer: Trainer) -> float:
        loader = trainer.datamodule.train_loader  # type: ignore[attr-defined]
        return loader.wait_s if loader is not None else 0.0


class LearningRate(Callback):
    """Logs `train/lr`, the rate that the step is taken with; the optimisers here have one for all their groups."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        # a tensor of the host: Lightning would send a plain number to the device and wait for it to arrive
        rate = torch.tensor(trainer.optimizers[0].param_groups[0]["lr"], dtype=torch.float32)
        pl_module.log("train/lr", rate, batch_size=len(batch))


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
