"""Samplers: plain functions that carry x_T down a grid of times to x_0, asking a denoiser at each.

    sampler(denoiser, x_T, times=time_grid(denoiser.schedule, 20)) -> x_0

`times` falls from where x_T lives (1: unit noise) to where the answer lives (0: clean); n steps have n + 1
times. What a sampler is made of stands in `calls.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

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
)
from diffusion_art.diffusion.denoiser import AnyDenoiser
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.diffusion.time_grids import check_spacing, time_grid
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
    for call in calls:
        x_0_hat = denoiser(x, _rows_at(call.t, x))
        if callback is not None and not call.corrects:
            callback(call.step_index, call.t, x, x_0_hat)
        x_next = call.of_x * x + call.of_x0 * x_0_hat
        if call.of_memory:
            x_next = x_next + call.of_memory * memory
        if call.of_noise:
            if noise is None:
                raise ValueError("this sampler draws noise at each step: give it noise=NoiseSource(...)")
            x_next = x_next + call.of_noise * noise(call.step_index).to(x)
        if call.remembers:
            memory = call.memory_of_x * x + call.memory_of_x0 * x_0_hat
        x = x_next
    return x


SAMPLERS = {sampler.__name__: sampler for sampler in (ddim, ancestral, euler, heun, dpmpp_2m, consistency)}


@dataclass(frozen=True)
class Sampler:
    """A sampler with its settings: what `conf/sampler/` fills.

    `num_steps` is the number of steps down the grid, one network call each, nearly two for Heun. `eta` is
    DDIM's.
    """

    name: str
    num_steps: int = 50
    spacing: str = "uniform"
    eta: float = 0.0

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

    def describe(self) -> dict[str, str | int | float]:
        """The settings as plain data, for a picture's metadata."""
        return asdict(self)

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

    def calls(self, schedule: Schedule) -> list[Call]:
        """The network calls of sampling under `schedule`, from t = 1 to t = 0."""
        times = time_grid(schedule, self.num_steps, spacing=self.spacing)
        settings = {"eta": self.eta} if self.name == "ddim" else {}
        return list(CALLS[self.name](schedule, times, **settings))


def _rows_at(t: float, x_t: Tensor) -> Float[Tensor, " b"]:
    """t for every image, in float32 at least."""
    dtype = torch.float64 if x_t.dtype == torch.float64 else torch.float32
    return torch.full((len(x_t),), t, dtype=dtype, device=x_t.device)
