"""Backbone, schedule and prediction joined: the estimate of E[x_0 | x_t] that samplers work with.

A prediction says what the backbone outputs, and how x_0 is read out of it. With x_t = alpha x_0 + sigma eps, every
choice is a linear view of the same pair (x_0, eps):

    epsilon   eps                      x_0 = (x_t - sigma out) / alpha
    v         alpha eps - sigma x_0    x_0 = (alpha x_t - sigma out) / (alpha^2 + sigma^2)
    x0        x_0                      x_0 = out
    flow      eps - x_0                x_0 = (x_t - sigma out) / (alpha + sigma)

so an error in the output, times `x0_error_scale`, is an error in x_0. The formulas hold under every schedule,
variance preserving or not; alpha and sigma broadcast against the images, [b 1 1 1] or scalar.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError

Backbone = Callable[[Tensor, Tensor], Tensor]  # (x_t [b c h w], t [b]) -> out [b c h w], captions already bound
ALPHA_FLOOR = 1e-6  # keeps the scale of an epsilon error finite in float32


class Prediction(ABC):
    """The meaning of the backbone's output, and what it is shown for it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def inputs(self, x_t: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """What the backbone is called with: the noisy image and a clock in [0, 1], here x_t and t themselves."""
        return x_t, t

    @abstractmethod
    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the output should have been."""

    @abstractmethod
    def to_x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The x_0_hat that this output stands for."""

    @abstractmethod
    def x0_error_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """|x_0_hat - x_0| per unit of error in the output; its square turns one's MSE into the other's."""


class Epsilon(Prediction):
    """The noise (Ho et al. 2020, https://arxiv.org/abs/2006.11239). Undefined where alpha = 0: see
    `check_prediction`; `to_x0` answers 0 there, the middle of the image range."""

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return eps

    def to_x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        known = alpha > 0
        x_0 = (x_t - sigma * out) / torch.where(known, alpha, 1)
        return torch.where(known, x_0, torch.zeros_like(x_0))

    def x0_error_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma / alpha.clamp(min=ALPHA_FLOOR)


class V(Prediction):
    """Velocity on the circle (Salimans & Ho 2022, https://arxiv.org/abs/2202.00512)."""

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * eps - sigma * x_0

    def to_x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * x_t - sigma * out) / (alpha**2 + sigma**2)

    def x0_error_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma / (alpha**2 + sigma**2)


class X0(Prediction):
    """The clean image itself, the choice for large patches (Li & He 2025, https://arxiv.org/abs/2511.13720)."""

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_0

    def to_x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return out

    def x0_error_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.ones_like(alpha)


class Flow(Prediction):
    """Velocity of the straight path, dx/dt of flow matching (Lipman et al. 2022, https://arxiv.org/abs/2210.02747)."""

    def target(self, x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return eps - x_0

    def to_x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x_t - sigma * out) / (alpha + sigma)

    def x0_error_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma / (alpha + sigma)


def check_prediction(prediction: Prediction, schedule: Schedule) -> None:
    """Refuse epsilon under zero terminal SNR.

    At t = 1 such a schedule leaves x_t = eps, so predicting eps is copying the input, teaches nothing about
    the image, and sampling would divide by alpha = 0 in its very first step (Lin et al. 2023, section 3.2,
    https://arxiv.org/abs/2305.08891).
    """
    if isinstance(prediction, Epsilon) and schedule.zero_terminal_snr:
        raise UserError(
            f"epsilon prediction cannot be combined with {schedule!r}: its terminal SNR is zero (alpha = 0 "
            "at t = 1), where x_0 = (x_t - sigma eps) / alpha divides by zero. Use model/prediction=v "
            "(or x0, flow), or a schedule with some signal left at t = 1, such as model/schedule=linear_beta"
        )


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
