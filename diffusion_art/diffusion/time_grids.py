"""Where a sampler stops on its way from t = 1 to t = 0.

uniform    even in t; the network sees what diffusers' "trailing" spacing shows it
log_snr    even in log SNR (Lu et al. 2022, https://arxiv.org/abs/2206.00927)
karras     even in (sigma / alpha)^(1/7), crowded near the clean end (Karras et al. 2022, Eq. 5,
           https://arxiv.org/abs/2206.00364)

The last two need finite ends: they go from sigma / alpha = 80, or the schedule's own largest, to 0.002, and
then take the last step to exactly 0. Where the schedule starts above 80 they still start at t = 1. A grid fitted to
one network is found by `time_search.py` and given as a list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError

# log SNR of sigma / alpha = 80 and 0.002, EDM's sigma_max and sigma_min
LOG_SNR_FIRST = -2 * math.log(80)
LOG_SNR_LAST = -2 * math.log(0.002)
RHO = 7
CLOSEST = 1e-6  # steps of a grid given as numbers; finer ones cost accuracy, and what extrapolates them overshoots


def uniform(schedule: Schedule, num_steps: int) -> Float[Tensor, " n"]:
    return torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)[:-1]


def log_snr(schedule: Schedule, num_steps: int) -> Float[Tensor, " n"]:
    return schedule.t_of_log_snr(torch.linspace(_first_log_snr(schedule), LOG_SNR_LAST, num_steps, dtype=torch.float64))


def karras(schedule: Schedule, num_steps: int) -> Float[Tensor, " n"]:
    first, last = (math.exp(-end / 2) for end in (_first_log_snr(schedule), LOG_SNR_LAST))  # sigma / alpha
    ratio = torch.linspace(first ** (1 / RHO), last ** (1 / RHO), num_steps, dtype=torch.float64) ** RHO
    return schedule.t_of_log_snr(-2 * ratio.log())


SPACINGS: dict[str, Callable[[Schedule, int], Tensor]] = {
    spacing.__name__: spacing for spacing in (uniform, log_snr, karras)
}


def time_grid(schedule: Schedule, num_steps: int, *, spacing: str = "uniform") -> Float[Tensor, " n1"]:
    """num_steps + 1 strictly falling times from exactly 1 to exactly 0, float64 on the CPU."""
    if num_steps < 1:
        raise UserError(f"num_steps must be at least 1, not {num_steps}; try num_steps=20")
    check_spacing(spacing)
    starts = SPACINGS[spacing](schedule, num_steps)
    starts[0] = 1.0  # unit noise lives at t = 1, whatever the log SNR there
    return torch.cat([starts, starts.new_zeros(1)])


def check_spacing(spacing: str) -> None:
    if spacing not in SPACINGS:
        raise UserError(f"no time spacing named {spacing!r}; choose one of {', '.join(SPACINGS)}")


def check_times(times: Sequence[float]) -> tuple[float, ...]:
    """A grid given as numbers. UserError unless it falls from exactly 1 to exactly 0, by CLOSEST a step or more."""
    grid = tuple(float(t) for t in times)
    rule = f"sampler times must fall from 1 to 0, by {CLOSEST:g} a step or more, as in [1, 0.6, 0.2, 0]"
    if grid[:1] != (1.0,) or grid[-1:] != (0.0,):
        raise UserError(f"{rule}; these go from {list(grid[:1])} to {list(grid[-1:])}")
    for a, b in pairwise(grid):
        if not a - b >= CLOSEST:
            raise UserError(f"{rule}; after {a} comes {b}")
    return grid


def _first_log_snr(schedule: Schedule) -> float:
    return max(schedule.log_snr(torch.ones(1, dtype=torch.float64)).item(), LOG_SNR_FIRST)
