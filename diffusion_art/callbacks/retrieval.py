"""How often a CLIP finds the caption of a picture and the picture of a caption, and its folder for open_clip."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diffusion_art.callbacks.graceful_stop import was_stopped
from diffusion_art.callbacks.sample_grid import painting
from diffusion_art.files import written_folder
from diffusion_art.tensors import Batch

log = logging.getLogger(__name__)

Seen = tuple[Tensor, Tensor, list[str]]  # vectors of pictures, of captions, and the captions


class Retrieval(Callback):
    """After each validation tells and logs R@1 among all its pairs, `val/caption_of_picture` and
    `val/picture_of_caption`, and writes `clip/`, which open_clip reads as `local-dir:`: the averaged weights.

    With several processes, all bring their pairs together, and the first one tells and writes.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)
        self.written_at = -1  # step of the folder
        self._seen: list[Seen] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        model: Any = pl_module.model  # with the averaged weights, until the validation ends
        self._seen.append((model.images(batch.images).cpu(), model.captions(batch.captions).cpu(), batch.captions))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        seen: list[Any] = gathered(self._seen)  # of a process without a picture too: the others wait for it
        self._seen = []
        if not (seen and trainer.is_global_zero):
            return
        images, captions = (torch.cat([part[side] for part in seen]) for side in (0, 1))
        of_picture, of_caption = recall_at_1(images, captions, [text for part in seen for text in part[2]])
        log.info(
            "step %d: of %d held-out pairs, %.1f %% of pictures find their caption first, %.1f %% of captions their "
            "picture (R@1; by chance %.1f %%)",
            trainer.global_step,
            len(images),
            *(100 * of_picture, 100 * of_caption, 100 / len(images)),
        )
        for logger in trainer.loggers:  # the label of the step taken last
            told = {"val/caption_of_picture": of_picture, "val/picture_of_caption": of_caption}
            logger.log_metrics(told, step=max(0, trainer.global_step - 1))
        self.write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not was_stopped(trainer):  # who stopped the run wants to go
            self.write(trainer, pl_module)

    def write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.global_step == self.written_at:
            return
        self.written_at = trainer.global_step
        model: Any = pl_module.model
        with painting(trainer, pl_module), written_folder(self.folder / "clip") as folder:
            model.write(folder)


def gathered(seen: list[Seen]) -> list[Seen]:
    """Of all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return seen
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, seen)
    return [part for theirs in everyones for part in theirs]


def recall_at_1(
    images: Float[Tensor, "n d"], captions: Float[Tensor, "n d"], texts: Sequence[str]
) -> tuple[float, float]:
    """The share of pictures whose nearest caption is theirs, and of captions whose nearest picture is theirs; a caption
    that several pictures have is that of each.
    """
    cosines = images @ captions.T
    nearest_caption, nearest_picture = cosines.argmax(1).tolist(), cosines.argmax(0).tolist()
    of_picture = sum(texts[found] == text for found, text in zip(nearest_caption, texts))
    of_caption = sum(texts[found] == text for found, text in zip(nearest_picture, texts))
    return of_picture / len(texts), of_caption / len(texts)
