"""Pictures on the way from one caption to another, or from one seed to another."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import AnyDenoiser
from diffusion_art.diffusion.interpolation import EstimateBetween, NoiseBetween
from diffusion_art.diffusion.noise import NoiseSource
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.errors import UserError
from diffusion_art.models.text_to_image import TextToImage


@torch.no_grad()
def paint_between_captions(
    model: TextToImage, first: str, last: str, *, frames: int, seed: int, sampler: Sampler, **guidance: Any
) -> Float[Tensor, "n 3 h w"]:
    """Pictures in [-1, 1] from one caption to another, all from the same noise.

    `guidance` is guidance_scale, interval, rescale and threshold of `TextToImage.denoiser`. The first and last picture
    are those that `generate` paints for the two captions with this seed.

    Raises:
        UserError: fewer than two frames.
    """
    fractions = _fractions(frames, model)
    start, end = (model.denoiser(model.encode_captions([text] * frames), **guidance) for text in (first, last))
    noise = NoiseSource([seed] * frames, model.latent_shape, device=model.device)
    return _painted(model, EstimateBetween(start, end, fractions), noise, sampler)


@torch.no_grad()
def paint_between_seeds(
    model: TextToImage, prompt: str, *, seeds: tuple[int, int], frames: int, sampler: Sampler, **guidance: Any
) -> Float[Tensor, "n 3 h w"]:
    """Pictures in [-1, 1] of one prompt, from the noise of one seed to that of another along a sphere.

    Raises:
        UserError: fewer than two frames, or a seed out of range.
    """
    fractions = _fractions(frames, model)
    denoiser = model.denoiser(model.encode_captions([prompt] * frames), **guidance)
    noise = NoiseBetween(*seeds, fractions, model.latent_shape, device=model.device)
    return _painted(model, denoiser, noise, sampler)


def _painted(
    model: TextToImage, denoiser: AnyDenoiser, noise: NoiseSource | NoiseBetween, sampler: Sampler
) -> Float[Tensor, "n 3 h w"]:
    x_0 = sampler.sample(denoiser, noise.x_T(), noise=noise)
    return model.codec.decode(x_0).float().clamp(-1, 1).cpu()


def _fractions(frames: int, model: TextToImage) -> Float[Tensor, " n"]:
    if frames < 2:
        raise UserError(f"frames={frames} are too few: a way has two ends, so give frames=2 or more.")
    return torch.linspace(0, 1, frames, device=model.device)
