"""Guidance: a denoiser made of two.

    x_0_hat = null + guidance_scale (cond - null)

so scale 1 is plain conditional, 0 unconditional, and above 1 trades variety for likeness to the caption.
Guiding x_0_hat is guiding eps or v: at a given x_t they are affine in each other.

`null` is the same network without the caption (classifier-free guidance), or a worse network with it (autoguidance).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import Denoiser
from diffusion_art.errors import UserError

EDGE = 1e-6  # what rounding may take from a time that lies on an edge of the interval


@dataclass(eq=False)
class Guidance:
    """Steer the denoiser of a caption away from that of no caption (or of a negative one), or from a worse one.

    Give `null` to call two networks, or one twice, or `doubled` to call it once: the same pair as one denoiser of 2b
    rows, the b captions first, then the b nulls. At scale 1 only `cond` is called. Clipping, when `cond`
    clips, comes last, after the extrapolation.

    `interval` (t_low, t_high) guides only where t lies within; elsewhere the step is plain conditional and
    costs half. Paper: Kynkaanniemi et al. 2024, https://arxiv.org/abs/2404.07724

    `rescale` in [0, 1] pulls each image's standard deviation back to that of `cond`, against the
    over-exposure of large scales; 0 leaves it. Paper: Lin et al. 2023, section 3.4,
    https://arxiv.org/abs/2305.08891

    `threshold` in [0, 1) is the share of an image's values that must fit the range: where they do not, the image is
    scaled down until they do, before it is clipped; 0 clips only. For denoisers that clip. See `bounded`.

    Classifier-free: Ho & Salimans 2022, https://arxiv.org/abs/2207.12598. Autoguidance, `null` being a smaller network
    or an earlier checkpoint that sees the same caption: Karras et al. 2024, https://arxiv.org/abs/2406.02507
    """

    cond: Denoiser
    null: Denoiser | None = None
    _: KW_ONLY
    guidance_scale: float | int
    doubled: Denoiser | None = None
    interval: tuple[float, float] | None = None
    rescale: float | int = 0.0
    threshold: float | int = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.guidance_scale):
            raise UserError(f"guidance_scale must be a finite number, not {self.guidance_scale}; 1 is no guidance")
        tempering(interval=self.interval, rescale=self.rescale, threshold=self.threshold)
        if self.threshold and not self.cond.clip:
            raise UserError(
                f"guidance threshold={self.threshold} needs latents that are pixels in [-1, 1], and these have no "
                "bounds; use guidance.rescale=0.7 instead"
            )
        if self.guidance_scale != 1 and (self.null is None) == (self.doubled is None):
            raise ValueError("guidance needs either null or doubled")
        self.schedule = self.cond.schedule

    def __call__(self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        inside = None if self.interval is None else within(t, self.interval)  # which rows to guide; None: all
        if self.guidance_scale == 1 or (inside is not None and not inside.any()):
            return self.cond(x_t, t)
        cond, null = self._both(x_t, t)
        guided = self._guided(cond, null)
        if inside is None:
            return guided
        plain = cond.clamp(-1, 1) if self.cond.clip else cond
        return torch.where(inside[:, None, None, None], guided, plain)  # rows may stand at different times

    def at(self, x_t: Float[Tensor, "b c h w"], t: float) -> Float[Tensor, "b c h w"]:
        """The same where all images stand at one time."""
        outside = self.interval is not None and not within(t, self.interval)
        if self.guidance_scale == 1 or outside:
            return self.cond.at(x_t, t)
        return self._guided(*self._both(x_t, t))

    def _guided(self, cond: Tensor, null: Tensor) -> Tensor:
        guided = guide(cond, null, scale=self.guidance_scale, rescale=self.rescale)
        return bounded(guided, share=[self.threshold] * len(guided)) if self.cond.clip else guided

    def _both(self, x_t: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        if self.doubled is not None:
            twice = torch.cat([t, t]) if isinstance(t, Tensor) else t
            cond, null = self.doubled.unclipped(torch.cat([x_t, x_t]), twice).chunk(2)
            return cond, null
        assert self.null is not None
        return self.cond.unclipped(x_t, t), self.null.unclipped(x_t, t)


def within(t: Any, interval: tuple[float, float]) -> Any:
    """Whether times, a number or a tensor of them, lie in guidance's interval, its edges included."""
    return (t >= interval[0] - EDGE) & (t <= interval[1] + EDGE)


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


def bounded(x_0_hat: Float[Tensor, "b c h w"], *, share: Sequence[float | int]) -> Float[Tensor, "b c h w"]:
    """x_0_hat within [-1, 1] by dynamic thresholding: clip to [-s, s] and divide by s.

    s, one per image, is the magnitude that this share of its values stays below, 1 at the least. So a share of 0 is
    plain clipping, and 0.995 keeps detail in pictures that strong guidance would bleach. Paper: Saharia et al. 2022
    (Imagen), section 2.3, https://arxiv.org/abs/2205.11487
    """
    if not any(share):
        return x_0_hat.clamp(-1, 1)
    s = torch.stack([_magnitude(row, part) for row, part in zip(x_0_hat, share, strict=True)])[:, None, None, None]
    return x_0_hat.clamp(-s, s) / s


def tempering(
    *, interval: Sequence[float | int] | None = None, rescale: float | int = 0.0, threshold: float | int = 0.0
) -> dict[str, Any]:
    """The three settings that temper `Guidance`, from a config, as its keyword arguments. UserError for wrong ones."""
    if interval is not None and (len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1):
        raise UserError(f"guidance interval must be 0 <= low < high <= 1 in t, not {tuple(interval)}")
    if not 0 <= rescale <= 1:
        raise UserError(f"guidance rescale must lie in [0, 1], not {rescale}; 0 is none, 0.7 is usual")
    if not 0 <= threshold < 1:
        raise UserError(f"guidance threshold must lie in [0, 1), not {threshold}; 0 is none, 0.995 is Imagen's")
    return {
        "interval": None if interval is None else (float(interval[0]), float(interval[1])),
        "rescale": float(rescale),
        "threshold": float(threshold),
    }


def _magnitude(x: Tensor, share: float | int) -> Tensor:
    """What this share of |x| is at most, never below 1."""
    place = max(1, math.ceil(share * x.numel()))
    return x.abs().flatten().kthvalue(place).values.clamp(min=1) if share else x.new_ones(())


def _spread(x: Tensor) -> Tensor:
    """Standard deviation of each image, [b 1 1 1], never 0."""
    return x.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp(min=1e-8)
