"""An autoencoder to train: pictures <-> latents on which a text-to-image model is trained afterwards (`vae.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.utils.constants import SAFETENSORS_WEIGHTS_NAME
from jaxtyping import Float
from torch import Tensor

from diffusion_art.errors import UserError
from diffusion_art.files import save_tensors
from diffusion_art.models.trainable import Trainable


class Autoencoder(Trainable):
    """diffusers' AutoencoderKL: pictures [b 3 h w] <-> mean and log variance of latents, 2^(levels - 1) times smaller.

    Paper: Rombach et al. 2022 (latent diffusion), https://arxiv.org/abs/2112.10752

    Raises:
        UserError: pictures whose sides the levels cannot halve, or widths that are no multiples of `norm_groups`.
    """

    called = "an autoencoder"
    use = "a text-to-image model is trained on its latents: model/codec=vae model.codec.path=RUN"
    outer = ("net.encoder.conv_in", "net.decoder.conv_out")  # which Muon leaves to AdamW

    def __init__(
        self,
        *,
        image_size_px: int,
        block_channels: Sequence[int] = (32, 64, 64),
        layers_per_block: int = 1,
        latent_channels: int = 8,
        norm_groups: int = 16,
    ) -> None:
        super().__init__()
        if unfit := [width for width in block_channels if width % norm_groups]:
            raise UserError(f"model.block_channels has {unfit[0]}, which is no multiple of norm_groups={norm_groups}.")
        self.image_size_px = image_size_px
        self.factor = 2 ** (len(block_channels) - 1)
        self.latent_channels = latent_channels
        levels = len(block_channels)
        kind: Any = AutoencoderKL
        self.net: Any = kind(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(block_channels),
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            norm_num_groups=norm_groups,
            sample_size=image_size_px,
            scaling_factor=1.0,
            force_upcast=False,
        )
        self.check_size(image_size_px)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def check_size(self, image_size_px: int) -> None:
        """UserError where pictures of this size cannot be halved as often as there are levels."""
        if image_size_px % self.factor:
            raise UserError(
                f"pictures of {image_size_px} px are no multiple of {self.factor}, by which the autoencoder shrinks "
                "them: give another data.image_size_px, or fewer model.block_channels."
            )

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c h2 w2"], Float[Tensor, "b c h2 w2"]]:
        """Mean and log variance of the latents, in float32."""
        found = self.net.encode(images).latent_dist
        return found.mean.float(), found.logvar.float()

    def decode(self, latents: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b 3 h w"]:
        return self.net.decode(latents).sample.float()

    def latent_shape(self, images: Float[Tensor, "b 3 h w"]) -> tuple[int, int, int]:
        """c h w of the latents of these pictures."""
        return self.latent_channels, images.shape[-2] // self.factor, images.shape[-1] // self.factor

    @torch.no_grad()
    def normalise(self, images: Float[Tensor, "b 3 h w"]) -> None:
        """Write into its config the scale and shift by which latents of these pictures have mean 0 and variance 1."""
        means, _ = self.encode(images)
        self.net.register_to_config(scaling_factor=float(1 / means.std()), shift_factor=float(means.mean()))

    def write(self, folder: Path) -> None:
        """A folder that `AutoencoderKL.from_pretrained` reads. diffusers' own `save_pretrained` writes shares where the
        weights are shared out among processes, though they have been gathered.
        """
        self.net.save_config(folder)
        save_tensors(folder / SAFETENSORS_WEIGHTS_NAME, dict(self.net.named_parameters()), metadata={"format": "pt"})
