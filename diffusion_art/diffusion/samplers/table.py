"""A sampler as a table: the times at which the network is called, and what becomes of x_t after each call, where that
is a linear map.

After a call at time t has answered x_0_hat,

    x      <-  of_x x + of_x0 x_0_hat + of_memory memory + of_last last + of_noise eps     eps fresh unit noise
    memory <-  memory_of_x x + memory_of_x0 x_0_hat + memory_of_memory memory + memory_of_last last
    last   <-  x_0_hat

all at once, the memory only where `remembers`; both memories start at zero. The numbers depend on the schedule and
the grid of times, not on the picture. So one loop runs every such sampler, and pictures of different samplers, at
different steps, can share a batch. They are computed on the CPU in float64. Each formula is arranged to hold at
alpha = 0 (the start of a zero-terminal-SNR or flow schedule) and at sigma = 0 (the end), and under schedules of any
variance.

Where a sampler stops on its way from t = 1 to t = 0:

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import AnyDenoiser, DenoiserAtOneTime, rows_at
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError

Noise = Callable[[int], Tensor]  # step_index -> fresh unit noise of x's shape
Callback = Callable[[int, float, Tensor, Tensor], None]  # step_index, t, x_t, x_0_hat
NO_NOISE = "this sampler draws noise at each step: give it noise=NoiseSource(...)"


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


@torch.no_grad()
def follow(
    calls: Iterable[Call],
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "b c h w"]:
    """The x that a sampler's calls lead to from x_T. ValueError where they ask for noise and there is none."""
    x, memory = x_T, torch.zeros_like(x_T)
    last = memory
    at_one_time = denoiser if isinstance(denoiser, DenoiserAtOneTime) else None
    for call in calls:
        x_0_hat = at_one_time.at(x, call.t) if at_one_time else denoiser(x, rows_at(call.t, x))
        if callback is not None and not call.corrects:
            callback(call.step_index, call.t, x, x_0_hat)
        eps = None
        if call.of_noise:
            if noise is None:
                raise ValueError(NO_NOISE)
            eps = noise(call.step_index).to(x)
        x_next, memory = after(call, x, x_0_hat, memory, last, eps=eps)
        x, last = x_next, x_0_hat
    return x


def after(
    call: Call, x: Tensor, x_0_hat: Tensor, memory: Tensor, last: Tensor, *, eps: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x and memory once a call has been answered: the maps above."""
    terms = [(call.of_x, x), (call.of_x0, x_0_hat), (call.of_memory, memory), (call.of_last, last)]
    x_next = weighted_sum(terms if eps is None else [*terms, (call.of_noise, eps)])
    if call.remembers:
        weights = call.memory_of_x, call.memory_of_x0, call.memory_of_memory, call.memory_of_last
        memory = weighted_sum(list(zip(weights, (x, x_0_hat, memory, last), strict=True)))
    return x_next, memory


def weighted_sum(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """The sum of weight * tensor over terms of one shape; those of weight 0 are not computed."""
    (weight, first), *others = [term for term in terms if term[0]] or terms[:1]
    total = first * weight
    for weight, tensor in others:
        total.add_(tensor, alpha=weight)
    return total


# ---------------------------------------------------------------------- the grid of times

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
