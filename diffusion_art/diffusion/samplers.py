"""Samplers: plain functions that carry x_T down a grid of times to x_0, asking a denoiser at each.

    sampler(denoiser, x_T, times=time_grid(denoiser.schedule, 20)) -> x_0

`times` falls from where x_T lives (1: unit noise) to where the answer lives (0: clean); n steps have n + 1
times. The scales of a step are computed on the CPU in float64. Each formula is arranged to hold at alpha =
0 (the start of a zero-terminal-SNR or flow schedule) and at sigma = 0 (the end), and under schedules of any
variance.

In the straight coordinates z = x / (alpha + sigma), u = sigma / (alpha + sigma), every schedule is flow
matching: z = (1 - u) x_0 + u eps, and the probability-flow ODE reads dz/du = eps_hat - x_0_hat = (z -
x_0_hat) / u, the form of Karras et al. 2022, Eq. 3 (https://arxiv.org/abs/2206.00364), but finite at both
ends. Euler there is DDIM with eta = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import AnyDenoiser
from diffusion_art.diffusion.predictions import eps_of_x0
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.diffusion.time_grids import check_spacing, time_grid
from diffusion_art.errors import UserError

Noise = Callable[[int], Tensor]  # step_index -> fresh unit noise of x's shape
Callback = Callable[[int, float, Tensor, Tensor], None]  # step_index, t, x_t, x_0_hat


@torch.no_grad()
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
    x_t = x_T
    for step in _steps(denoiser.schedule, times):
        x_0_hat = _denoise(denoiser, x_t, step, callback)
        eps_hat = eps_of_x0(x_0_hat, x_t, step.alpha, step.sigma)
        fresh = eta * step.renewed_sigma
        kept = math.sqrt(max(step.sigma_next**2 - fresh**2, 0.0))
        x_t = step.alpha_next * x_0_hat + kept * eps_hat + _fresh_noise(noise, step, fresh, x_t)
    return x_t


@torch.no_grad()
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
    x_t = x_T
    for step in _steps(denoiser.schedule, times):
        x_0_hat = _denoise(denoiser, x_t, step, callback)
        ratio = step.alpha / step.alpha_next
        noise_share = ratio * (step.sigma_next / step.sigma) ** 2
        mean = noise_share * x_t + (step.alpha_next - noise_share * step.alpha) * x_0_hat
        x_t = mean + _fresh_noise(noise, step, step.renewed_sigma, x_t)
    return x_t


@torch.no_grad()
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
    x_t = x_T
    for step in _steps(denoiser.schedule, times):
        x_0_hat = _denoise(denoiser, x_t, step, callback)
        z = x_t / step.norm
        slope = (z - x_0_hat) / step.u
        x_t = (z + (step.u_next - step.u) * slope) * step.norm_next
    return x_t


@torch.no_grad()
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
    x_t = x_T
    for step in _steps(denoiser.schedule, times):
        x_0_hat = _denoise(denoiser, x_t, step, callback)
        z = x_t / step.norm
        slope = (z - x_0_hat) / step.u
        z_next = z + (step.u_next - step.u) * slope
        if step.u_next > 0:
            x_0_hat = denoiser(z_next * step.norm_next, _rows_at(step.t_next, x_t))
            slope_next = (z_next - x_0_hat) / step.u_next
            z_next = z + (step.u_next - step.u) * (slope + slope_next) / 2
        x_t = z_next * step.norm_next
    return x_t


@torch.no_grad()
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
    x_t = x_T
    x_0_before, h_before = torch.zeros_like(x_T), math.inf
    for step in _steps(denoiser.schedule, times):
        x_0_hat = _denoise(denoiser, x_t, step, callback)
        ahead = step.h / (2 * h_before) if step.h < math.inf else 0.0  # 1 / (2 r); 0 after an infinite step
        data = x_0_hat + ahead * (x_0_hat - x_0_before)
        shrink = step.sigma_next / step.sigma
        x_t = shrink * x_t + (step.alpha_next - shrink * step.alpha) * data
        x_0_before, h_before = x_0_hat, step.h
    return x_t


SAMPLERS = {sampler.__name__: sampler for sampler in (ddim, ancestral, euler, heun, dpmpp_2m)}


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
        """From unit noise x_T to x_0. `noise` is needed by ancestral, and by ddim with eta > 0."""
        times = time_grid(denoiser.schedule, self.num_steps, spacing=self.spacing)
        settings = {"eta": self.eta} if self.name == "ddim" else {}
        return SAMPLERS[self.name](denoiser, x_T, times=times, noise=noise, callback=callback, **settings)


@dataclass(frozen=True)
class _Step:
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


def _steps(schedule: Schedule, times: Tensor) -> Iterator[_Step]:
    """The steps of a grid. ValueError unless it falls strictly within [0, 1]."""
    grid = times.detach().double().cpu()
    if len(grid) < 2 or not (grid.diff() < 0).all() or grid[0] > 1 or grid[-1] < 0:
        raise ValueError(f"times must fall strictly within [0, 1], not {grid.tolist()}")
    alpha, sigma = (scale.tolist() for scale in schedule.alpha_sigma(grid))
    t = grid.tolist()
    for i in range(len(t) - 1):
        yield _Step(i, t[i], t[i + 1], alpha[i], sigma[i], alpha[i + 1], sigma[i + 1])


def _denoise(denoiser: AnyDenoiser, x_t: Tensor, step: _Step, callback: Callback | None) -> Tensor:
    x_0_hat = denoiser(x_t, _rows_at(step.t, x_t))
    if callback is not None:
        callback(step.index, step.t, x_t, x_0_hat)
    return x_0_hat


def _rows_at(t: float, x_t: Tensor) -> Float[Tensor, " b"]:
    """t for every image, in float32 at least."""
    dtype = torch.float64 if x_t.dtype == torch.float64 else torch.float32
    return torch.full((len(x_t),), t, dtype=dtype, device=x_t.device)


def _fresh_noise(noise: Noise | None, step: _Step, scale: float, x_t: Tensor) -> Tensor | float:
    if scale == 0:
        return 0.0
    if noise is None:
        raise ValueError("this sampler draws noise at each step: give it noise=NoiseSource(...)")
    return scale * noise(step.index).to(x_t)
