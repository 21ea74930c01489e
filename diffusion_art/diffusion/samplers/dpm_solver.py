"""Exponential integrators: the linear part of the ODE is solved exactly, x_0_hat is extrapolated.

Over a step,

    x_next = shrink x + data x_0_hat,    shrink = sigma_next / sigma,    data = alpha_next (1 - e^-h)

would be exact if x_0_hat stayed as it is; h is the rise of log(alpha / sigma).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diffusion_art.diffusion.samplers.base import Tabular
from diffusion_art.diffusion.samplers.table import Call, Step


@dataclass(frozen=True)
class DPMSolverPP2M(Tabular):
    """DPM-Solver++(2M): an exponential integrator that extrapolates x_0_hat from the last two. Draws no noise.

        x_next = shrink x + data ((1 + ahead) x_0_hat - ahead last)        ahead = h / (2 h_before)

    Second order at one call per step. A step from or to infinite log SNR, and the one after the former, is
    first order, which is DDIM's.

    Paper: Lu et al. 2022, Algorithm 2, https://arxiv.org/abs/2211.01095
    """

    name = "dpmpp_2m"
    title = "DPM++ 2M"

    num_steps: int = 20

    def table(self, steps: Iterable[Step]) -> Iterator[Call]:
        h_before = math.inf
        for step in steps:
            ahead = _ahead(step, h_before)
            of_x0, of_last = step.data * (1 + ahead), -step.data * ahead
            yield Call(step.index, step.t, of_x=step.shrink, of_x0=of_x0, of_last=of_last)
            h_before = step.h


@dataclass(frozen=True)
class UniPC(Tabular):
    """UniPC of order 2: DPM-Solver++(2M), each arrival corrected by the next call's answer. Draws no noise.

    The correction needs no call of its own: x_0_hat of the next call, taken at the uncorrected x, is the news. With
    x^c the corrected x, m_i the answers, and (past, before, news) the corrector's weights on m_i-1, m_i and m_i+1,

        memory_i+1 = shrink x^c_i + before m_i + past m_i-1           known after call i
        x^c_i+1    = memory_i+1 + news m_i+1                          known after call i + 1

    so x itself is never carried on (of_x = 0) once there is something to correct. Third order of accuracy at one call
    per step; best where steps are few. First order where DPM-Solver++(2M) is.

    Paper: Zhao et al. 2023, Algorithms 5 and 6 with B_2(h), https://arxiv.org/abs/2302.04867
    """

    name = "unipc"
    title = "UniPC"

    num_steps: int = 12

    def table(self, steps: Iterable[Step]) -> Iterator[Call]:
        h_before, news = math.inf, 0.0
        for step in steps:
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
