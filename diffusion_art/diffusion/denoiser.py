"""Backbone, schedule and prediction joined: the estimate of E[x_0 | x_t] that samplers work with."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import torch
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


@runtime_checkable
class DenoiserAtOneTime(AnyDenoiser, Protocol):
    """One that also takes a single time for all rows, as a number, and then spends less beside the network."""

    def at(self, x_t: Float[Tensor, "b c h w"], t: float) -> Float[Tensor, "b c h w"]: ...


def image_scales(
    schedule: Schedule, t: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
    """alpha and sigma at t, shaped to multiply images."""
    alpha, sigma = schedule.alpha_sigma(t)
    return rearrange(alpha, "b -> b 1 1 1"), rearrange(sigma, "b -> b 1 1 1")


def rows_at(t: float, x_t: Tensor) -> Float[Tensor, " b"]:
    """t for every image, in float32 at least."""
    dtype = torch.float64 if x_t.dtype == torch.float64 else torch.float32
    return torch.full((len(x_t),), t, dtype=dtype, device=x_t.device)


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

    def at(self, x_t: Float[Tensor, "b c h w"], t: float) -> Float[Tensor, "b c h w"]:
        """The same where all images stand at one time."""
        x_0_hat = self.unclipped(x_t, t)
        return x_0_hat.clamp_(-1, 1) if self.clip else x_0_hat

    def unclipped(self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"] | float) -> Float[Tensor, "b c h w"]:
        """x_0_hat before the clip: what guidance extrapolates, since clipping comes last."""
        if not isinstance(t, Tensor):
            return self._by_numbers(x_t, t)
        alpha, sigma = image_scales(self.schedule, t)
        out = self.backbone(*self.prediction.inputs(x_t, t, alpha, sigma))
        out = out.to(x_t.dtype)  # a network under autocast answers in bfloat16
        return self.prediction.to_x0(out, x_t, alpha, sigma).to(x_t.dtype)

    def _by_numbers(self, x_t: Tensor, t: float) -> Tensor:
        view = view_at(self.schedule, self.prediction, t)
        shown = x_t if view.shown == 1 else view.shown * x_t
        out = self.backbone(shown, rows_at(view.clock, x_t)).to(x_t.dtype)
        return (view.of_x * x_t).add_(out, alpha=view.of_out)


class View(NamedTuple):
    """A prediction at one time: the backbone is called with (shown x_t, clock), x_0_hat = of_x x_t + of_out out."""

    shown: float
    clock: float
    of_x: float
    of_out: float


@lru_cache(maxsize=4096)
def view_at(schedule: Schedule, prediction: Prediction, t: float) -> View:
    """The numbers of a prediction at one time, found in float64 by asking it about 1 and 0: it is linear in both."""
    at = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(at)
    one, none = torch.ones_like(at), torch.zeros_like(at)
    shown, clock = prediction.inputs(one, at, alpha, sigma)
    of_x, of_out = (prediction.to_x0(out, x_t, alpha, sigma) for out, x_t in ((none, one), (one, none)))
    return View(shown.item(), clock.item(), of_x.item(), of_out.item())
