"""Every schedule, prediction and sampler that the tests walk over, and small exact things to try them on.

The shelves are read from `conf/`, so a newcomer with a yaml is tested by existing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from diffusion_art.diffusion.denoiser import Epsilon, Prediction
from diffusion_art.diffusion.schedules import CosineSchedule, Flow, LinearBeta, Schedule, SquaredCosCapV2

CONF = Path(__file__).parents[2] / "conf"


def shelf(group: str) -> dict[str, Any]:
    """Each yaml of a config group, built."""
    return {path.stem: instantiate(OmegaConf.load(path)) for path in sorted((CONF / group).glob("*.yaml"))}


SCHEDULES: dict[str, Schedule] = shelf("model/schedule") | {
    "cosine_shift_2": CosineSchedule(shift=2.0),
    "cosine_some_terminal_snr": CosineSchedule(zero_terminal_snr=False),
    "flow_shift_3": Flow(shift=3.0),
    "linear_beta_zero_snr": LinearBeta(zero_terminal_snr=True),
    "squaredcos_zero_snr": SquaredCosCapV2(zero_terminal_snr=True),
}
PREDICTIONS: dict[str, Prediction] = shelf("model/prediction")
PAIRS = [
    (schedule, prediction)
    for schedule in SCHEDULES
    for prediction in PREDICTIONS
    if not (SCHEDULES[schedule].zero_terminal_snr and isinstance(PREDICTIONS[prediction], Epsilon))
]


class GaussianDenoiser:
    """The perfect denoiser of pixels drawn from N(mean, std^2).

    E[x_0 | x_t] = mean + alpha std^2 / (alpha^2 std^2 + sigma^2) (x_t - alpha mean). The probability-flow
    ODE keeps each pixel's quantile, so `transport` is where it ends, exactly.
    """

    def __init__(self, schedule: Schedule, *, mean: float = 0.3, std: float = 0.5) -> None:
        self.schedule = schedule
        self.mean = mean
        self.std = std
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        alpha, sigma = (scale[:, None, None, None] for scale in self.schedule.alpha_sigma(t))
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)

    def transport(self, x_T: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha_sigma(torch.ones(1, dtype=x_T.dtype))
        return self.mean + self.std * (x_T - alpha * self.mean) / torch.hypot(alpha * self.std, sigma)


class GaussianStudent(GaussianDenoiser):
    """The perfect student of it: not the mean of x_0 given x_t, but where the ODE takes x_t."""

    def spread(self, t: Tensor) -> Tensor:
        """Standard deviation of x_t, [b 1 1 1]."""
        alpha, sigma = (scale[:, None, None, None] for scale in self.schedule.alpha_sigma(t))
        return torch.hypot(alpha * self.std, sigma)

    def carry(self, x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """x_r on the ODE through x_t: every pixel keeps its quantile."""
        alpha, alpha_r = (self.schedule.alpha_sigma(time)[0][:, None, None, None] for time in (t, r))
        return alpha_r * self.mean + self.spread(r) / self.spread(t) * (x_t - alpha * self.mean)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.carry(x_t, t, torch.zeros_like(t))


class WavyNetwork:
    """A smooth, nonlinear stand-in for a network, (x_t, t) -> out, that mixes channels and neighbours."""

    def __init__(self, channels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        weight = torch.randn(channels, channels, 3, 3, generator=torch.Generator().manual_seed(seed))
        self.weight = weight.to(dtype) / 3
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        wave = torch.nn.functional.conv2d(x_t, self.weight, padding=1)
        return torch.tanh(wave + torch.cos(3 * t)[:, None, None, None])


def eps_of_x0(x_0: Tensor, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """The noise that x_t holds if its clean image is x_0: (x_t - alpha x_0) / sigma, for sigma > 0."""
    return (x_t - alpha * x_0) / sigma
