"""Samplers: plain functions that carry x_T down a grid of times to x_0, asking a denoiser at each.

    sampler(denoiser, x_T, times=time_grid(denoiser.schedule, 20)) -> x_0

`times` falls from where x_T lives (1: unit noise) to where the answer lives (0: clean); n steps have n + 1
times. What a sampler is made of stands in `calls.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.calls import (
    CALLS,
    Call,
    ancestral_calls,
    consistency_calls,
    ddim_calls,
    dpmpp_2m_calls,
    euler_calls,
    heun_calls,
    unipc_calls,
)
from diffusion_art.diffusion.denoiser import AnyDenoiser, DenoiserAtOneTime, rows_at
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.diffusion.time_grids import check_spacing, check_times, time_grid
from diffusion_art.errors import UserError

Noise = Callable[[int], Tensor]  # step_index -> fresh unit noise of x's shape
Callback = Callable[[int, float, Tensor, Tensor], None]  # step_index, t, x_t, x_0_hat


def ddim(
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    times: Float[Tensor, " n1"],
    eta: float = 0.0,
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "b c h w"]:
    """DDIM: keep x_0_hat and most of the noise, renew a share of it.

    eta = 0 is deterministic, eta = 1 renews as much as DDPM does. First order.

    Paper: Song et al. 2020, Eq. 12 and 16, https://arxiv.org/abs/2010.02502
    """
    return follow(ddim_calls(denoiser.schedule, times, eta=eta), denoiser, x_T, noise=noise, callback=callback)


def ancestral(
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    times: Float[Tensor, " n1"],
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "b c h w"]:
    """Ancestral sampling: draw x_s from the posterior q(x_s | x_t, x_0_hat) of the forward process.

    DDPM on a coarse grid, the sampler that others call Euler ancestral. First order.

    Paper: Ho et al. 2020, Eq. 6 and 7, https://arxiv.org/abs/2006.11239
    """
    return follow(ancestral_calls(denoiser.schedule, times), denoiser, x_T, noise=noise, callback=callback)


def euler(
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    times: Float[Tensor, " n1"],
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "b c h w"]:
    """Euler steps of the probability-flow ODE in straight coordinates. First order; draws no noise.

    Paper: Karras et al. 2022, Algorithm 1 without its correction, https://arxiv.org/abs/2206.00364
    """
    return follow(euler_calls(denoiser.schedule, times), denoiser, x_T, noise=noise, callback=callback)


def heun(
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    times: Float[Tensor, " n1"],
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "b c h w"]:
    """Heun steps of the same ODE: an Euler step, then the mean of the slopes at both ends. Draws no noise.

    Second order. Each step calls the denoiser twice, save one that ends at sigma = 0: 2 n - 1 calls.

    Paper: Karras et al. 2022, Algorithm 1, https://arxiv.org/abs/2206.00364
    """
    return follow(heun_calls(denoiser.schedule, times), denoiser, x_T, noise=noise, callback=callback)


def dpmpp_2m(
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    times: Float[Tensor, " n1"],
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "b c h w"]:
    """DPM-Solver++(2M): exponential integrator that extrapolates x_0_hat from the last two. Draws no noise.

    Second order at one call per step. A step from or to infinite log SNR, and the one after the former, is
    first order, which is DDIM's.

    Paper: Lu et al. 2022, Algorithm 2, https://arxiv.org/abs/2211.01095
    """
    return follow(dpmpp_2m_calls(denoiser.schedule, times), denoiser, x_T, noise=noise, callback=callback)


def unipc(
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    times: Float[Tensor, " n1"],
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "b c h w"]:
    """UniPC of order 2: DPM-Solver++(2M) whose every step is corrected by the next call's answer. Draws no noise.

    Third order of accuracy at one call per step; best where steps are few. First order where DPM-Solver++(2M) is.

    Paper: Zhao et al. 2023, Algorithms 5 and 6 with B_2(h), https://arxiv.org/abs/2302.04867
    """
    return follow(unipc_calls(denoiser.schedule, times), denoiser, x_T, noise=noise, callback=callback)


def consistency(
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    times: Float[Tensor, " n1"],
    noise: Noise | None = None,
    callback: Callback | None = None,
) -> Float[Tensor, "b c h w"]:
    """Multistep consistency sampling: take x_0_hat for the picture, noise it afresh down to the next time, again.

    For distilled students (distillation.py), whose x_0_hat is the end of an ODE; one step draws no noise. The x_0_hat
    of other networks is a mean over pictures, and what comes out then is too smooth.

    Paper: Song et al. 2023, Algorithm 1, https://arxiv.org/abs/2303.01469
    """
    return follow(consistency_calls(denoiser.schedule, times), denoiser, x_T, noise=noise, callback=callback)


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
                raise ValueError("this sampler draws noise at each step: give it noise=NoiseSource(...)")
            eps = noise(call.step_index).to(x)
        x_next, memory = after(call, x, x_0_hat, memory, last, eps=eps)
        x, last = x_next, x_0_hat
    return x


def after(
    call: Call, x: Tensor, x_0_hat: Tensor, memory: Tensor, last: Tensor, *, eps: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x and memory once a call has been answered: the maps of `calls.py`."""
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


SAMPLERS = {sampler.__name__: sampler for sampler in (ddim, ancestral, euler, heun, dpmpp_2m, unipc, consistency)}


@dataclass(frozen=True)
class Sampler:
    """A sampler with its settings: what `conf/sampler/` fills.

    `num_steps` is the number of steps down the grid, one network call each, nearly two for Heun. `times`, from 1 down
    to 0, are the grid itself, as `diffusion_art.schedule_search` finds it; `num_steps` is then theirs, and `spacing`
    means nothing. `eta` is DDIM's.
    """

    name: str
    num_steps: int = 50
    spacing: str = "uniform"
    eta: float = 0.0
    times: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise UserError(f"no sampler named {self.name!r}; choose one of {', '.join(SAMPLERS)}")
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta must lie in [0, 1], not {self.eta}: 0 is deterministic, 1 is DDPM")
        if self.eta and self.name != "ddim":
            raise UserError(f"sampler {self.name} has no eta (got {self.eta}); only ddim has, so drop it")
        if self.num_steps < 1:
            raise UserError(f"num_steps must be at least 1, not {self.num_steps}; try num_steps=20")
        check_spacing(self.spacing)
        if self.times is not None:
            object.__setattr__(self, "times", check_times(self.times))  # a tuple, since samplers are keys of tables
            object.__setattr__(self, "num_steps", len(self.times) - 1)

    def describe(self) -> dict[str, str | int | float | list[float]]:
        """The settings as plain data, for a picture's metadata; `times` only where they were given."""
        settings = asdict(self)
        times = settings.pop("times")
        return settings if times is None else settings | {"times": list(times)}

    def in_steps(self, num_steps: int) -> Sampler:
        """The same sampler in another number of steps; a grid of its own is then given up for its spacing."""
        return self if num_steps == self.num_steps else replace(self, num_steps=num_steps, times=None)

    def sample(
        self,
        denoiser: AnyDenoiser,
        x_T: Float[Tensor, "b c h w"],
        *,
        noise: Noise | None = None,
        callback: Callback | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """From unit noise x_T to x_0. `noise` is needed by ancestral, consistency, and ddim with eta > 0."""
        return follow(self.calls(denoiser.schedule), denoiser, x_T, noise=noise, callback=callback)

    def grid(self, schedule: Schedule) -> Float[Tensor, " n1"]:
        """The times it stops at under `schedule`, float64, from 1 down to 0."""
        if self.times is not None:
            return torch.tensor(self.times, dtype=torch.float64)
        return time_grid(schedule, self.num_steps, spacing=self.spacing)

    def calls(self, schedule: Schedule) -> list[Call]:
        """The network calls of sampling under `schedule`, from t = 1 to t = 0."""
        settings = {"eta": self.eta} if self.name == "ddim" else {}
        return list(CALLS[self.name](schedule, self.grid(schedule), **settings))
