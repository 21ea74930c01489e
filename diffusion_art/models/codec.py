"""Codecs: image <-> the space we diffuse in. Pixels count as such a space; `vae.py` has one with weights.

A codec says how many `channels` its latents have, by what `factor` they are smaller than the image, and
whether they are `bounded` to [-1, 1] like the image itself, so that an estimate of x_0 may be clipped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class Codec(ABC):
    """What `TextToImage` asks of a codec."""

    channels: int  # of the latents
    factor: int  # image side / latent side
    bounded: bool  # whether latents stay in [-1, 1]

    @abstractmethod
    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]: ...

    @abstractmethod
    def decode(self, latents: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b 3 h w"]: ...

    def describe(self) -> dict[str, Any] | None:
        """Who it is, as plain data for a checkpoint, with a `sha256` of its weights; None where it has none."""
        return None

    def kept(self) -> dict[str, Tensor]:
        """Its weights that a checkpoint has to hold, since other machines could not get them; empty: none."""
        return {}


class Pixel(Codec):
    """Diffuse the pixels themselves."""

    channels = 3
    factor = 1
    bounded = True

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return images

    def decode(self, latents: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return latents


class Unshuffle(Codec):
    """The same pixels with each block of `factor` x `factor` stacked into channels, nothing lost.

    latents[:, factor^2 c + factor i + j, y, x] = images[:, c, factor y + i, factor x + j].

    Paper: Shi et al. 2016, sub-pixel convolution, https://arxiv.org/abs/1609.05158
    """

    channels: int
    factor: int
    bounded = True

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        return F.pixel_unshuffle(images, self.factor)

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        return F.pixel_shuffle(latents, self.factor)


class Unshuffle2(Unshuffle):
    """Blocks of 2 x 2: a quarter of the positions, which cuts the network's cost about fourfold at equal depth."""

    channels, factor = 12, 2


class Unshuffle4(Unshuffle):
    """Blocks of 4 x 4: a sixteenth of the positions, 48 channels each. Of so many a network had better be asked for the
    picture than for its noise: `model/prediction=x0`.

    Paper: Li & He 2025 (JiT), https://arxiv.org/abs/2511.13720
    """

    channels, factor = 48, 4
