"""Classifier-free guidance: a denoiser made of two.

    x_0_hat = null + guidance_scale (cond - null)

so scale 1 is plain conditional, 0 unconditional, and above 1 trades variety for likeness to the caption.
Guiding x_0_hat is guiding eps or v: at a given x_t they are affine in each other.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import Denoiser
from diffusion_art.errors import UserError


class ClassifierFreeGuidance:
    """Steer the denoiser of a caption away from that of no caption (or of a negative one).

    Give `null` to call the network twice, or `doubled` to call it once: the same pair as one denoiser of 2b
    rows, the b captions first, then the b nulls. At scale 1 only `cond` is called. Clipping, when `cond`
    clips, comes last, after the extrapolation.

    `interval` (t_low, t_high) guides only where t lies within; elsewhere the step is plain conditional and
    costs half. Paper: Kynkaanniemi et al. 2024, https://arxiv.org/abs/2404.07724

    `rescale` in [0, 1] pulls each image's standard deviation back to that of `cond`, against the
    over-exposure of large scales; 0 leaves it. Paper: Lin et al. 2023, section 3.4,
    https://arxiv.org/abs/2305.08891

    Guidance itself: Ho & Salimans 2022, https://arxiv.org/abs/2207.12598
    """

    def __init__(
        self,
        cond: Denoiser,
        null: Denoiser | None = None,
        *,
        guidance_scale: float | int,
        doubled: Denoiser | None = None,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
    ) -> None:
        if not math.isfinite(guidance_scale):
            raise UserError(f"guidance_scale must be a finite number, not {guidance_scale}; 1 is no guidance")
        if interval is not None and not 0 <= interval[0] < interval[1] <= 1:
            raise UserError(f"guidance interval must be 0 <= low < high <= 1 in t, not {tuple(interval)}")
        if not 0 <= rescale <= 1:
            raise UserError(f"guidance rescale must lie in [0, 1], not {rescale}; 0 is none, 0.7 is usual")
        if guidance_scale != 1 and (null is None) == (doubled is None):
            raise ValueError("guidance needs either null or doubled")
        self.cond = cond
        self.null = null
        self.doubled = doubled
        self.guidance_scale = guidance_scale
        self.interval = interval
        self.rescale = rescale
        self.schedule = cond.schedule

    def __call__(self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        inside = self._inside(t)
        if self.guidance_scale == 1 or (inside is not None and not inside.any()):
            return self.cond(x_t, t)
        cond, null = self._both(x_t, t)
        guided = guide(cond, null, scale=self.guidance_scale, rescale=self.rescale)
        if inside is not None:  # rows may stand at different times
            guided = torch.where(inside[:, None, None, None], guided, cond)
        return guided.clamp(-1, 1) if self.cond.clip else guided

    def _inside(self, t: Tensor) -> Tensor | None:
        """Which rows to guide; None for all."""
        if self.interval is None:
            return None
        low, high = self.interval
        return (t >= low) & (t <= high)

    def _both(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.doubled is not None:
            cond, null = self.doubled.unclipped(torch.cat([x_t, x_t]), torch.cat([t, t])).chunk(2)
            return cond, null
        assert self.null is not None
        return self.cond.unclipped(x_t, t), self.null.unclipped(x_t, t)


def guide(
    cond: Float[Tensor, "b c h w"],
    null: Float[Tensor, "b c h w"],
    *,
    scale: float | int | Float[Tensor, "b 1 1 1"],
    rescale: float | int | Float[Tensor, "b 1 1 1"] = 0.0,
) -> Float[Tensor, "b c h w"]:
    """The guided x_0_hat, not clipped. Each image may have a scale and a rescale of its own."""
    guided = null + scale * (cond - null)
    if isinstance(rescale, Tensor) or rescale:
        guided = guided * (1 + rescale * (_spread(cond) / _spread(guided) - 1))
    return guided


def _spread(x: Tensor) -> Tensor:
    """Standard deviation of each image, [b 1 1 1], never 0."""
    return x.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp(min=1e-8)
