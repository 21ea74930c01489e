"""EDM's stochastic sampler: Heun's method with noise added and removed again on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.samplers.base import Ask, Loop, Noise, Walk
from diffusion_art.diffusion.samplers.table import Step
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError


@dataclass(frozen=True)
class StochasticHeun(Loop):
    """Heun steps, each from a little more noise than the last one ended at ("churn"), which corrects earlier errors.

        s_hat = (1 + gamma) s,   x_hat / alpha_hat = x / alpha + s_noise sqrt(s_hat^2 - s^2) eps,   s = sigma / alpha
        gamma = min(s_churn / num_steps, sqrt(2) - 1) where s_tmin <= s <= s_tmax, else 0

    then a Heun step from s_hat to the next s, in the coordinates of `euler.py`. Where noise is infinite, or would be
    more than the schedule has, there is none to add. `s_churn` = 0 is `Heun`. 2 n - 1 network calls for n steps; wants
    more steps than `Heun`. The defaults are the paper's for ImageNet at 64 px (Table 5).

    Paper: Karras et al. 2022, Algorithm 2, https://arxiv.org/abs/2206.00364
    """

    name = "stochastic_heun"
    title = "Stochastic Heun"

    spacing: str = "karras"
    s_churn: float = 40.0
    s_tmin: float = 0.05
    s_tmax: float = 50.0
    s_noise: float = 1.003

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.s_churn < 0 or self.s_noise < 0:
            raise UserError(f"s_churn={self.s_churn} and s_noise={self.s_noise} must be 0 or more; 0 adds no noise")
        if not 0 <= self.s_tmin <= self.s_tmax:
            raise UserError(f"s_tmin={self.s_tmin} must lie between 0 and s_tmax={self.s_tmax}: noise is added there")

    def num_calls(self, schedule: Schedule) -> int:
        return 2 * self.num_steps - 1

    def walk(self, schedule: Schedule, steps: Sequence[Step], x: Float[Tensor, "b c h w"], noise: Noise) -> Walk:
        for step in steps:
            t, alpha, sigma = self._churned(schedule, step, len(steps))
            if t > step.t:
                kept = alpha / step.alpha
                added = math.sqrt(max(sigma**2 - (kept * step.sigma) ** 2, 0.0))
                x = kept * x + self.s_noise * added * noise(step.index).to(x)
            norm, u = alpha + sigma, sigma / (alpha + sigma)
            z, du = x / norm, step.u_next - u
            slope = (z - (yield Ask(step.index, t, x))) / u
            z_next = z + du * slope
            if step.u_next > 0:
                x_guess = step.norm_next * z_next
                x_0_hat = yield Ask(step.index, step.t_next, x_guess, corrects=True)
                z_next = z + du * (slope + (z_next - x_0_hat) / step.u_next) / 2
            x = step.norm_next * z_next
        return x

    def _churned(self, schedule: Schedule, step: Step, num_steps: int) -> tuple[float, float, float]:
        """The time a step really starts from, and alpha and sigma there."""
        s = step.sigma / step.alpha if step.alpha else math.inf
        gamma = min(self.s_churn / num_steps, math.sqrt(2) - 1)
        if not (gamma and step.t < 1 and self.s_tmin <= s <= self.s_tmax):
            return step.t, step.alpha, step.sigma
        log_snr = torch.tensor([-2 * math.log(s * (1 + gamma))], dtype=torch.float64)
        t = schedule.t_of_log_snr(log_snr).clamp(step.t, 1)
        alpha, sigma = schedule.alpha_sigma(t)
        return t.item(), alpha.item(), sigma.item()
