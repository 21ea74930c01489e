"""From decoded pixels to what training sees: augment as bytes on the loader, floats in [-1, 1] on the device. Latents,
which come as the bytes of bfloat16, become floats there too.

Every random choice is a pure function of (seed, position in the endless order), so the picture a run sees at a
position does not depend on ranks, workers, or where the run was interrupted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from diffusion_art.randomness import uniforms
from diffusion_art.tensors import Batch


class Augmentation:
    """Mirror and random zoom of training pictures, each drawn from the sample's position.

    `horizontal_flip` is the probability of a mirror image. `min_crop` below 1 cuts a random square of side
    between `min_crop` and 1 of the picture's and resizes it back; of a picture that is no square, a piece of its shape.
    """

    def __init__(self, *, horizontal_flip: float = 0.0, min_crop: float = 1.0) -> None:
        if not 0.0 <= horizontal_flip <= 1.0:
            raise ValueError(f"horizontal_flip is a probability from 0 to 1, not {horizontal_flip}")
        if not 0.1 <= min_crop <= 1.0:
            raise ValueError(f"min_crop is a share of the side from 0.1 to 1, not {min_crop}")
        self.horizontal_flip = horizontal_flip
        self.min_crop = min_crop

    def __call__(self, images: UInt8[np.ndarray, "b h w 3"], *, seed: int, positions: np.ndarray) -> None:
        """Augment `images` in place, each by its position."""
        if self.min_crop < 1.0:
            side, left, top = (uniforms(seed, positions, stream=stream) for stream in (1, 2, 3))
            for image, *row in zip(images, side, left, top, strict=True):
                image[...] = self._crop(image, *row)
        if self.horizontal_flip > 0.0:
            mirrored = np.flatnonzero(uniforms(seed, positions, stream=0) < self.horizontal_flip)
            images[mirrored] = images[mirrored, :, ::-1]

    def _crop(self, image: np.ndarray, side: float, left: float, top: float) -> np.ndarray:
        height, width = image.shape[:2]
        share = self.min_crop + (1.0 - self.min_crop) * side
        rows, columns = max(1, round(height * share)), max(1, round(width * share))
        x, y = round((width - columns) * left), round((height - rows) * top)
        piece = Image.fromarray(np.ascontiguousarray(image[y : y + rows, x : x + columns]))
        return np.asarray(piece.resize((width, height), Image.Resampling.BICUBIC))


def to_float(images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """x / 127.5 - 1, in [-1, 1]; the same numbers on every device, in the memory layout of `images`."""
    # A divisor on the device: by a plain number a GPU multiplies with its reciprocal, which rounds differently.
    divisor = torch.full((), 127.5, device=images.device)
    return images.to(torch.float32).div_(divisor).sub_(1.0)


def on_device(batch: Batch) -> Batch:
    """A batch from a loader as a step takes it: pictures in [-1, 1], or latents; states and features in float32. One
    that is so already stays as it is.
    """
    if batch.images.is_floating_point():
        return batch
    images = latents_of(batch.images) if batch.encoded else to_float(batch.images)
    features = None if batch.features is None else batch.features.float()
    return replace(batch, images=images, cond=batch.cond and batch.cond.to(torch.float32), features=features)


def latents_of(rows: UInt8[Tensor, "b c h w2"]) -> Float[Tensor, "b c h w"]:
    """From the bytes of bfloat16."""
    return rows.contiguous().view(torch.bfloat16).float()
