"""Samplers as tables: what becomes of x_t after each network call, for every sampler a linear map.

After a call at time t has answered x_0_hat,

    x      <-  of_x x + of_x0 x_0_hat + of_memory memory + of_last last + of_noise eps     eps fresh unit noise
    memory <-  memory_of_x x + memory_of_x0 x_0_hat + memory_of_memory memory + memory_of_last last
    last   <-  x_0_hat

all at once, the memory only where `remembers`; both memories start at zero. The numbers depend on the schedule and
the grid of times, not on the picture. So one loop runs every sampler, and pictures of different samplers, at
different steps, can share a batch. They are computed on the CPU in float64. Each formula is arranged to hold at
alpha = 0 (the start of a zero-terminal-SNR or flow schedule) and at sigma = 0 (the end), and under schedules of any
variance.

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
    of_last: float = 0.0
    of_noise: float = 0.0
    remembers: bool = False
    memory_of_x: float = 0.0
    memory_of_x0: float = 0.0
    memory_of_memory: float = 0.0
    memory_of_last: float = 0.0
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

    A step from or to infinite log SNR, and the one after the former, is first order, which is DDIM's.
    """
    h_before = math.inf
    for step in steps_of(schedule, times):
        ahead = _ahead(step, h_before)
        yield Call(
            step.index,
            step.t,
            of_x=step.shrink,
            of_x0=step.data * (1 + ahead),
            of_last=-step.data * ahead,
        )
        h_before = step.h


def unipc_calls(schedule: Schedule, times: Float[Tensor, " n1"]) -> Iterator[Call]:
    """DPM-Solver++(2M), each arrival corrected by what the network says there: Zhao et al. 2023, UniPC-2, B_2(h).

    The correction needs no call of its own: x_0_hat of the next call, taken at the uncorrected x, is the news. With
    x^c the corrected x, m_i the answers, and (past, before, news) the corrector's weights on m_i-1, m_i and m_i+1,

        memory_i+1 = shrink x^c_i + before m_i + past m_i-1           known after call i
        x^c_i+1    = memory_i+1 + news m_i+1                          known after call i + 1

    so x itself is never carried on (of_x = 0) once there is something to correct.
    """
    h_before, news = math.inf, 0.0
    for step in steps_of(schedule, times):
        ahead = _ahead(step, h_before)
        past, before, next_news = _corrector(step, h_before)
        # x^c_i as numbers on (x, x_0_hat, memory)
        of_x, of_x0, of_memory = (0.0, news, 1.0) if news else (1.0, 0.0, 0.0)
        yield Call(
            step.index,
            step.t,
            of_x=step.shrink * of_x,
            of_x0=step.shrink * of_x0 + step.data * (1 + ahead),
            of_memory=step.shrink * of_memory,
            of_last=-step.data * ahead,
            remembers=next_news != 0,
            memory_of_x=step.shrink * of_x,
            memory_of_x0=step.shrink * of_x0 + before,
            memory_of_memory=step.shrink * of_memory,
            memory_of_last=past,
        )
        h_before, news = step.h, next_news


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
    "unipc": unipc_calls,
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
    def shrink(self) -> float:
        """What is left of x in a step of an exponential integrator."""
        return self.sigma_next / self.sigma

    @property
    def data(self) -> float:
        """And how much of x_0_hat comes in its place, alpha_next (1 - e^-h)."""
        return self.alpha_next - self.shrink * self.alpha

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


def _ahead(step: Step, h_before: float) -> float:
    """How far to extrapolate the last two x_0_hat: 1 / (2 r), r = h_before / h; 0 from or to infinite log SNR."""
    return step.h / (2 * h_before) if step.h < math.inf else 0.0


def _corrector(step: Step, h_before: float) -> tuple[float, float, float]:
    """Weights on x_0_hat before the step, at its start and at its end: Zhao et al. 2023, Algorithm 1, B_2(h) = e^h - 1.

    First order after an infinite step; none (all 0) where the step itself is infinite.
    """
    if step.h == math.inf:
        return 0.0, 0.0, 0.0
    if h_before == math.inf:
        return 0.0, step.data / 2, step.data / 2
    # rho solves  rho_past + rho_news = b_1,  r rho_past + rho_news = b_2,  at r = -h_before / h and 1
    r, h = -h_before / step.h, step.h
    b_1, b_2 = _phi_ratios(h)
    rho_past = (b_1 - b_2) / (1 - r)
    rho_news = b_1 - rho_past
    past, news = step.data * rho_past / r, step.data * rho_news
    return past, step.data - past - news, news


def _phi_ratios(h: float) -> tuple[float, float]:
    """b_k = k! phi_k+1(-h) / phi_1(-h) for k = 1, 2, phi_1(z) = (e^z - 1) / z, z phi_k+1(z) = phi_k(z) - 1 / k!."""
    if h < 0.02:  # the recurrence cancels: Taylor's series instead
        return 1 / 2 + h / 12 - h**3 / 720, 1 / 3 + h / 12 + h**2 / 360 - h**3 / 720
    phi_1 = -math.expm1(-h) / h
    phi_2 = (1 - phi_1) / h
    phi_3 = (1 / 2 - phi_2) / h
    return phi_2 / phi_1, 2 * phi_3 / phi_1
