"""Samplers as tables: what becomes of x_t after each network call, for every sampler a linear map.

After a call at time t has answered x_0_hat,

    x    <-  of_x x + of_x0 x_0_hat + of_memory memory + of_noise eps       eps fresh unit noise
    memory <- memory_of_x x + memory_of_x0 x_0_hat                          only where `remembers`

with numbers that depend on the schedule and the grid of times, not on the picture. So one loop runs every sampler,
and pictures of different samplers, at different steps, can share a batch. The numbers are computed on the CPU in
float64. Each formula is arranged to hold at alpha = 0 (the start of a zero-terminal-SNR or flow schedule) and at
sigma = 0 (the end), and under schedules of any variance.

In the straight coordinates z = x / (alpha + sigma), u = sigma / (alpha + sigma), every schedule is flow
matching: z = (1 - u) x_0 + u eps, and the probability-flow ODE reads dz/du = eps_hat - x_0_hat = (z -
x_0_hat) / u, the form of Karras et al. 2022, Eq. 3 (https://arxiv.org/abs/2206.00364), but finite at both
ends. Euler there is DDIM with eta = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.schedules import Schedule


@dataclass(frozen=True)
class Call:
    """One network call, at time `t` within step `step_index`, and what follows from its answer.

    `corrects` marks a second call within a step (Heun's), whose x_t is a guess.
    """

    step_index: int
    t: float
    of_x: float
    of_x0: float
    of_memory: float = 0.0
    of_noise: float = 0.0
    remembers: bool = False
    memory_of_x: float = 0.0
    memory_of_x0: float = 0.0
    corrects: bool = False


def ddim_calls(schedule: Schedule, times: Float[Tensor, " n1"], *, eta: float = 0.0) -> Iterator[Call]:
    """Keep x_0_hat and most of the noise, renew a share of it: Song et al. 2020, Eq. 12 and 16."""
    for step in steps_of(schedule, times):
        fresh = eta * step.renewed_sigma
        kept = math.sqrt(max(step.sigma_next**2 - fresh**2, 0.0)) / step.sigma
        yield Call(step.index, step.t, of_x=kept, of_x0=step.alpha_next - kept * step.alpha, of_noise=fresh)


def ancestral_calls(schedule: Schedule, times: Float[Tensor, " n1"]) -> Iterator[Call]:
    """The posterior q(x_s | x_t, x_0_hat): Ho et al. 2020, Eq. 6 and 7."""
    for step in steps_of(schedule, times):
        kept = step.alpha / step.alpha_next * (step.sigma_next / step.sigma) ** 2
        of_x0 = step.alpha_next - kept * step.alpha
        yield Call(step.index, step.t, of_x=kept, of_x0=of_x0, of_noise=step.renewed_sigma)


def euler_calls(schedule: Schedule, times: Float[Tensor, " n1"]) -> Iterator[Call]:
    """z + (u_next - u) (z - x_0_hat) / u: Karras et al. 2022, Algorithm 1 without its correction."""
    for step in steps_of(schedule, times):
        yield _euler(step)


def heun_calls(schedule: Schedule, times: Float[Tensor, " n1"]) -> Iterator[Call]:
    """An Euler step, then the mean of the slopes at both ends; the last step, to sigma = 0, stays Euler's.

    The memory is z after half an Euler step: what the second slope's half is added to. Karras et al. 2022,
    Algorithm 1.
    """
    for step in steps_of(schedule, times):
        guess = _euler(step)
        if step.u_next == 0:
            yield guess
            continue
        half = step.norm_next * (step.u_next - step.u) / 2
        memory_of_x = (step.norm_next + half / step.u) / step.norm
        yield Call(
            step.index,
            step.t,
            of_x=guess.of_x,
            of_x0=guess.of_x0,
            remembers=True,
            memory_of_x=memory_of_x,
            memory_of_x0=-half / step.u,
        )
        of_x, of_x0 = half / step.u_next / step.norm_next, -half / step.u_next
        yield Call(step.index, step.t_next, of_x=of_x, of_x0=of_x0, of_memory=1.0, corrects=True)


def dpmpp_2m_calls(schedule: Schedule, times: Float[Tensor, " n1"]) -> Iterator[Call]:
    """An exponential integrator that extrapolates x_0_hat from the last two: Lu et al. 2022, Algorithm 2.

    The memory is the last x_0_hat. A step from or to infinite log SNR, and the one after the former, is first
    order, which is DDIM's.
    """
    h_before = math.inf
    for step in steps_of(schedule, times):
        ahead = step.h / (2 * h_before) if step.h < math.inf else 0.0  # 1 / (2 r); 0 after an infinite step
        shrink = step.sigma_next / step.sigma
        data = step.alpha_next - shrink * step.alpha
        yield Call(
            step.index,
            step.t,
            of_x=shrink,
            of_x0=data * (1 + ahead),
            of_memory=-data * ahead,
            remembers=True,
            memory_of_x0=1.0,
        )
        h_before = step.h


def consistency_calls(schedule: Schedule, times: Float[Tensor, " n1"]) -> Iterator[Call]:
    """x_0_hat, noised afresh down to the next time: Song et al. 2023, Algorithm 1."""
    for step in steps_of(schedule, times):
        yield Call(step.index, step.t, of_x=0.0, of_x0=step.alpha_next, of_noise=step.sigma_next)


CALLS: dict[str, Callable[..., Iterator[Call]]] = {
    "ddim": ddim_calls,
    "ancestral": ancestral_calls,
    "euler": euler_calls,
    "heun": heun_calls,
    "dpmpp_2m": dpmpp_2m_calls,
    "consistency": consistency_calls,
}


# ---------------------------------------------------------------------- steps down a grid of times


@dataclass(frozen=True)
class Step:
    """One step down the grid, t -> t_next, with the scales at its two ends."""

    index: int
    t: float
    t_next: float
    alpha: float
    sigma: float
    alpha_next: float
    sigma_next: float

    @property
    def norm(self) -> float:
        return self.alpha + self.sigma

    @property
    def norm_next(self) -> float:
        return self.alpha_next + self.sigma_next

    @property
    def u(self) -> float:
        return self.sigma / self.norm

    @property
    def u_next(self) -> float:
        return self.sigma_next / self.norm_next

    @property
    def h(self) -> float:
        """Rise of log(alpha / sigma), half that of log SNR; inf from alpha = 0 and to sigma = 0."""
        if self.alpha == 0 or self.sigma_next == 0:
            return math.inf
        return math.log(self.alpha_next * self.sigma / (self.sigma_next * self.alpha))

    @property
    def renewed_sigma(self) -> float:
        """Standard deviation of q(x_s | x_t, x_0): the noise that ancestral sampling draws afresh."""
        kept = self.alpha * self.sigma_next / (self.alpha_next * self.sigma)
        return self.sigma_next * math.sqrt(max(1 - kept**2, 0.0))


def steps_of(schedule: Schedule, times: Float[Tensor, " n1"]) -> Iterator[Step]:
    """The steps of a grid. ValueError unless it falls strictly within [0, 1]."""
    grid = times.detach().double().cpu()
    if len(grid) < 2 or not (grid.diff() < 0).all() or grid[0] > 1 or grid[-1] < 0:
        raise ValueError(f"times must fall strictly within [0, 1], not {grid.tolist()}")
    alpha, sigma = (scale.tolist() for scale in schedule.alpha_sigma(grid))
    t = grid.tolist()
    for i in range(len(t) - 1):
        yield Step(i, t[i], t[i + 1], alpha[i], sigma[i], alpha[i + 1], sigma[i + 1])


def _euler(step: Step) -> Call:
    kept = step.u_next / step.u
    return Call(step.index, step.t, of_x=kept * step.norm_next / step.norm, of_x0=step.norm_next * (1 - kept))
