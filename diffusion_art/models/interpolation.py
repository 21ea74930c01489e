"""Pictures on the way from one caption to another, or from one seed to another.

Between two captions go their estimates, between two seeds their noises, along a sphere.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import AnyDenoiser
from diffusion_art.diffusion.samplers import NoiseSource, Sampler
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


def slerp(
    first: Float[Tensor, "#n c h w"], last: Float[Tensor, "#n c h w"], fractions: Float[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Spherical interpolation: sin((1 - f) a) / sin(a) first + sin(f a) / sin(a) last, a being the angle between them.

    Unit noise in many dimensions lies near a sphere. A straight line between two noises leaves it, and pictures painted
    from its middle are flat; this way stays on it. For noises of one direction it is the straight line.

    Papers: Shoemake 1985, https://doi.org/10.1145/325334.325242; White 2016, https://arxiv.org/abs/1609.04468
    """
    f = fractions[:, None, None, None].to(first)
    cosine = torch.nn.functional.cosine_similarity(first.flatten(1), last.flatten(1))
    angle = cosine.clamp(-1, 1).acos()[:, None, None, None]
    if (angle.sin() < 1e-4).any():
        return torch.lerp(first, last, f)
    return (((1 - f) * angle).sin() * first + (f * angle).sin() * last) / angle.sin()


class NoiseBetween:
    """As `NoiseSource`, for pictures on the way from one seed's noise to another's, that of every step included."""

    def __init__(
        self, first_seed: int, last_seed: int, fractions: Float[Tensor, " n"], shape: tuple[int, int, int], *,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.first, self.last = (NoiseSource([seed], shape, device=device) for seed in (first_seed, last_seed))
        self.fractions = fractions.to(device)

    def x_T(self) -> Float[Tensor, "n c h w"]:
        """The pure noise that sampling starts from."""
        return slerp(self.first.x_T(), self.last.x_T(), self.fractions)

    def __call__(self, step_index: int) -> Float[Tensor, "n c h w"]:
        """The fresh noise of a stochastic sampler's step."""
        return slerp(self.first(step_index), self.last(step_index), self.fractions)


class EstimateBetween:
    """x_0_hat = (1 - f) first + f last, f being each row's own: a denoiser between those of two captions.

    It follows the product of both distributions, p_first^(1 - f) p_last^f, at each noise level; at f = 0 and 1 it is
    one of the two to the bit, whatever the lengths of the captions.

    Paper: Liu et al. 2022, Compositional Visual Generation with Composable Diffusion, https://arxiv.org/abs/2206.01714
    """

    def __init__(self, first: AnyDenoiser, last: AnyDenoiser, fractions: Float[Tensor, " n"]) -> None:
        self.first, self.last = first, last
        self.fractions = fractions
        self.schedule = first.schedule

    def __call__(self, x_t: Float[Tensor, "n c h w"], t: Float[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        f = self.fractions[:, None, None, None].to(x_t)
        return torch.lerp(self.first(x_t, t), self.last(x_t, t), f)
