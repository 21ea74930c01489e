"""What an autoencoder makes of pictures, and its folder for diffusers, after each validation and at the end."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_art.callbacks.graceful_stop import was_stopped
from diffusion_art.callbacks.sample_grid import painting, paints, remove_later_grids
from diffusion_art.files import written_folder
from diffusion_art.images import film_strip, to_png
from diffusion_art.tensors import Batch

log = logging.getLogger(__name__)


class Reconstructions(Callback):
    """Writes `samples/step_00001000.png`, the first `pictures` of the validation beside their reconstructions, logs
    `val/psnr` of its first batch, and writes `vae/`, which `AutoencoderKL.from_pretrained` reads: the averaged
    weights, with the scale and shift that give latents of that batch mean 0 and variance 1.

    Without a validation it shows the last batch of training, at the end. With several processes, the first one writes.
    """

    def __init__(self, *, folder: str, pictures: int = 8) -> None:
        self.folder = Path(folder)
        self.pictures = pictures
        self.painted_at = -1  # step of the newest grid
        self._images: Tensor | None = None
        self._validates = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        remove_later_grids(trainer, self.folder / "samples")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not self._validates:
            self._images = batch.images

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self._images, self._validates = batch.images, True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not was_stopped(trainer):  # who stopped the run wants to go
            self.show(trainer, pl_module)

    def show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step, images = trainer.global_step, self._images
        if not paints(trainer) or step == self.painted_at or images is None:
            return
        self.painted_at = step
        model: Any = pl_module.model
        with painting(trainer, pl_module):
            if not trainer.is_global_zero:
                return
            decoded = model.decode(model.encode(images)[0]).clamp(-1, 1)
            model.normalise(images)
            with written_folder(self.folder / "vae") as folder:
                model.write(folder)
        psnr = psnr_db(decoded, images)
        path = self.folder / "samples" / f"step_{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        count = min(self.pictures, len(images))
        strip = film_strip([images[:count], decoded[:count]], ["picture", "decoded"], title=f"step {step:,}")
        to_png(strip, path, {"psnr_db": psnr})
        for logger in trainer.loggers:
            logger.log_metrics({"val/psnr": psnr}, step=max(0, step - 1))  # the label of the step taken last
        log.info("step %d: decoded pictures have a PSNR of %.1f dB; %s", step, psnr, path)


def psnr_db(decoded: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]) -> float:
    """10 log10(range^2 / mean squared error) of pictures in [-1, 1], infinite for equal ones."""
    error = float((decoded.float() - images.float()).square().mean(dtype=torch.float32))
    return 10 * math.log10(4 / error) if error else math.inf
