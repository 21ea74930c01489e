"""DDIM and DDPM: keep x_0_hat and some of the noise, draw the rest afresh."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diffusion_art.diffusion.samplers.base import Tabular
from diffusion_art.diffusion.samplers.table import Call, Step
from diffusion_art.errors import UserError


@dataclass(frozen=True)
class DDIM(Tabular):
    """DDIM: keep x_0_hat and most of the noise, renew a share of it.

        x_s = alpha_s x_0_hat + sqrt(sigma_s^2 - fresh^2) eps_hat + fresh eps        fresh = eta renewed_sigma

    `eta` = 0 is deterministic, 1 renews as much as DDPM does. First order.

    Paper: Song et al. 2020, Eq. 12 and 16, https://arxiv.org/abs/2010.02502
    """

    name = "ddim"
    title = "DDIM"

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta must lie in [0, 1], not {self.eta}: 0 is deterministic, 1 is DDPM")

    def table(self, steps: Iterable[Step]) -> Iterator[Call]:
        for step in steps:
            fresh = self.eta * step.renewed_sigma
            kept = math.sqrt(max(step.sigma_next**2 - fresh**2, 0.0)) / step.sigma
            yield Call(step.index, step.t, of_x=kept, of_x0=step.alpha_next - kept * step.alpha, of_noise=fresh)


@dataclass(frozen=True)
class Ancestral(Tabular):
    """Ancestral sampling: draw x_s from the posterior q(x_s | x_t, x_0_hat) of the forward process.

        x_s = kept x_t + (alpha_s - kept alpha_t) x_0_hat + renewed_sigma eps
        kept = alpha_t / alpha_s (sigma_s / sigma_t)^2

    DDPM on a coarse grid, the sampler that others call Euler ancestral. First order.

    Paper: Ho et al. 2020, Eq. 6 and 7, https://arxiv.org/abs/2006.11239
    """

    name = "ancestral"
    title = "Euler a"

    num_steps: int = 100

    def table(self, steps: Iterable[Step]) -> Iterator[Call]:
        for step in steps:
            kept = step.alpha / step.alpha_next * (step.sigma_next / step.sigma) ** 2
            of_x0 = step.alpha_next - kept * step.alpha
            yield Call(step.index, step.t, of_x=kept, of_x0=of_x0, of_noise=step.renewed_sigma)
