"""Real pictures to measure against, with the captions a model is asked to paint them from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.errors import UserError
from diffusion_art.sources.painter import Painter
from diffusion_art.tensors import Batch

REFERENCE_SEED = 9_101_000  # of the painter: far from the seeds of data sets, prompts and the judge


@dataclass(frozen=True)
class Reference:
    """Pictures in [-1, 1] and their captions."""

    images: Float[Tensor, "n 3 h w"]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: slice) -> Reference:
        return Reference(self.images[rows], self.captions[rows])


def painted(count: int, *, image_size_px: int, seed: int = 0) -> Reference:
    """`count` fresh paintings that no training run saw, of style x colour combinations that training shows."""
    painter = Painter(seed=REFERENCE_SEED + seed, count=count, image_size_px=image_size_px)
    paintings = [painter.paint(index) for index in range(count)]
    pixels = torch.from_numpy(np.stack([painting.image for painting in paintings]))
    images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    return Reference(images, [painting.commission.caption for painting in paintings])


def collected(batches: Iterable[Batch], count: int) -> Reference:
    """The first `count` pictures of a loader, once they are floats.

    Raises:
        UserError: the loader ends before.
    """
    images: list[Tensor] = []
    captions: list[str] = []
    for batch in batches:
        images.append(batch.images)
        captions += batch.captions
        if len(captions) >= count:
            return Reference(torch.cat(images)[:count], captions[:count])
    raise UserError(f"there are {len(captions):,} real pictures, and {count:,} were asked for: give fewer.")
