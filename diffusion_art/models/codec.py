"""Codecs: image <-> the space we diffuse in. Pixels count as such a space.

A codec says how many `channels` its latents have, by what `factor` they are smaller than the image, and
whether they are `bounded` to [-1, 1] like the image itself, so that an estimate of x_0 may be clipped.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """What `TextToImage` asks of a codec."""

    channels: int  # of the latents
    factor: int  # image side / latent side
    bounded: bool  # whether latents stay in [-1, 1]

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]: ...

    def decode(self, latents: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b 3 h w"]: ...


class Pixel:
    """Diffuse the pixels themselves."""

    channels = 3
    factor = 1
    bounded = True

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return images

    def decode(self, latents: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return latents


class Unshuffle2:
    """The same pixels with each 2x2 block stacked into channels: a quarter of the positions, nothing lost.

    latents[:, 4 c + 2 i + j, y, x] = images[:, c, 2 y + i, 2 x + j]. The network's first and last convolution
    then see 12 channels at half the side, which cuts its cost about fourfold at equal depth.

    Paper: Shi et al. 2016, sub-pixel convolution, https://arxiv.org/abs/1609.05158
    """

    channels = 12
    factor = 2
    bounded = True

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 12 h2 w2"]:
        return F.pixel_unshuffle(images, self.factor)

    def decode(self, latents: Float[Tensor, "b 12 h2 w2"]) -> Float[Tensor, "b 3 h w"]:
        return F.pixel_shuffle(latents, self.factor)
