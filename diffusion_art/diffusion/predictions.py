"""What the backbone outputs, and how x_0 is read out of it.

With x_t = alpha x_0 + sigma eps, every choice is a linear view of the same pair (x_0, eps):

    epsilon   eps                      x_0 = (x_t - sigma out) / alpha
    v         alpha eps - sigma x_0    x_0 = (alpha x_t - sigma out) / (alpha^2 + sigma^2)
    x0        x_0                      x_0 = out
    flow      eps - x_0                x_0 = (x_t - sigma out) / (alpha + sigma)

so an error in the output, times `x0_error_scale`, is an error in x_0. The formulas hold under every schedule,
variance preserving or not; alpha and sigma broadcast against the images, [b 1 1 1] or scalar.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError

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
