"""One training step of a CLIP: pictures and their captions -> the loss of the batch.

A global batch is judged at once, whatever the number of processes. In parts (`accumulate_grad_batches`) a picture meets
the captions of its own part alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.data.precomputed import on_device
from diffusion_art.models.clip_to_train import Contrastive, TrainableClip
from diffusion_art.tensors import Batch
from diffusion_art.training.step import Losses
from diffusion_art.training.weights_alone import WeightsAlone


@dataclass
class Pairs:
    """Pictures with their captions, and their times, which are 0: no noise is on them."""

    images: Float[Tensor, "b 3 h w"]
    captions: list[str]
    t: Float[Tensor, " b"]


class ClipStep(WeightsAlone):
    """The losses of a `TrainableClip` on batches of pictures and captions."""

    def __init__(self, model: TrainableClip, objective: Contrastive) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def drawn(self, batch: Batch, *, global_batch_size: int, parts: int = 1) -> Pairs:
        """Nothing is random."""
        return self.validated(batch)

    def validated(self, batch: Batch) -> Pairs:
        batch = on_device(batch)
        return Pairs(batch.images, batch.captions, torch.zeros(len(batch), device=batch.images.device))

    def forward(self, example: Pairs, *, step: int | None = None, every_weight: bool = False) -> Losses:
        """The loss of the batch, at each of its pictures alike. Without a `step`, that of this process's part."""
        model = self.model
        images, captions = model.images(example.images), model.captions(example.captions)
        loss = self.objective(images, captions, model.scale, gather=step is not None)
        return Losses(loss.expand(len(images)), {})
