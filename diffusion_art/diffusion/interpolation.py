"""Ways from one picture to another: between two noises along a sphere, between two captions by their estimates."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import AnyDenoiser
from diffusion_art.diffusion.noise import NoiseSource


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
