"""Backbone, schedule and prediction joined: the estimate of E[x_0 | x_t] that samplers work with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.predictions import Prediction
from diffusion_art.diffusion.schedules import Schedule

Backbone = Callable[[Tensor, Tensor], Tensor]  # (x_t [b c h w], t [b]) -> out [b c h w], captions already bound


@runtime_checkable
class AnyDenoiser(Protocol):
    """What a sampler asks for: (x_t, t) -> x_0_hat, and the schedule that x_t follows."""

    schedule: Schedule

    def __call__(self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]: ...


def image_scales(
    schedule: Schedule, t: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
    """alpha and sigma at t, shaped to multiply images."""
    alpha, sigma = schedule.alpha_sigma(t)
    return rearrange(alpha, "b -> b 1 1 1"), rearrange(sigma, "b -> b 1 1 1")


class Denoiser:
    """x_0_hat(x_t, t) of one backbone with its captions bound.

    `clip` holds x_0_hat in [-1, 1]: right for codecs whose latents are pixels, wrong for a VAE's.
    """

    def __init__(self, backbone: Backbone, *, schedule: Schedule, prediction: Prediction, clip: bool = False) -> None:
        self.backbone = backbone
        self.schedule = schedule
        self.prediction = prediction
        self.clip = clip

    def __call__(self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        x_0_hat = self.unclipped(x_t, t)
        return x_0_hat.clamp(-1, 1) if self.clip else x_0_hat

    def unclipped(self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """x_0_hat before the clip: what guidance extrapolates, since clipping comes last."""
        alpha, sigma = image_scales(self.schedule, t)
        out = self.backbone(*self.prediction.inputs(x_t, t, alpha, sigma)).to(
            x_t.dtype
        )  # a network under autocast answers in bfloat16
        return self.prediction.to_x0(out, x_t, alpha, sigma).to(x_t.dtype)
