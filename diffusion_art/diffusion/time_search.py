"""A grid of times fitted to one network, one sampler and one number of steps.

A fine grid is followed once, precisely. Then dynamic programming chooses, for each number of steps i and each fine time
t_j, from where to make step i so as to land nearest to the fine solution at t_j:

    cost(i, j) = min over k < j of |step(x of (i - 1, k), t_k -> t_j) - x_fine(t_j)|^2

carrying along the x that the chosen steps really lead to, so that later steps make up for earlier ones. The last step
ends at t = 0, and the way back from there is the grid. It asks the network i times at each fine time.

Paper: Pei et al. 2025 (OSS), Algorithm 1, https://arxiv.org/abs/2503.21774
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.diffusion.denoiser import AnyDenoiser, rows_at
from diffusion_art.diffusion.samplers import Sampler, Tabular
from diffusion_art.diffusion.samplers.ddim import DDIM
from diffusion_art.diffusion.samplers.euler import Heun
from diffusion_art.diffusion.samplers.table import SPACINGS, after, steps_of, time_grid
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError

NEAREST = 1e-3  # candidates keep this distance in t


@dataclass
class _Way:
    """The best way found to a fine time in so many steps, and the sampler's state there."""

    cost: float
    path: tuple[int, ...]  # places on the fine grid, the last one where it stands
    x: Tensor
    memory: Tensor
    last: Tensor


def fine_grid(schedule: Schedule, fine_steps: int) -> Float[Tensor, " n1"]:
    """The candidates, from 1 down to 0: half of them even in t, half even in log SNR, none closer than 0.001."""
    even = [time_grid(schedule, max(1, fine_steps // 2), spacing=spacing) for spacing in ("uniform", "log_snr")]
    kept = [1.0]
    for t in sorted(torch.cat(even).tolist(), reverse=True):
        if kept[-1] - t >= NEAREST and t >= NEAREST:
            kept.append(t)
    return torch.tensor([*kept, 0.0], dtype=torch.float64)


@torch.no_grad()
def search_times(
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    sampler: Sampler,
    num_steps: int,
    fine_steps: int = 64,
    on_step: Callable[[int], None] | None = None,
) -> list[float]:
    """num_steps + 1 times from 1 to 0 for `replace(sampler, times=...)`, fitted to these pictures.

    `on_step(i)` is told when all fine times have been tried as the start of step i.

    Raises:
        UserError: a sampler that draws noise or calls twice a step, or more steps than there are fine times.
    """
    sampler = _checked(sampler, denoiser.schedule)
    times = fine_grid(denoiser.schedule, fine_steps)
    end = len(times) - 1
    if not 1 <= num_steps <= end:
        raise UserError(f"num_steps={num_steps} must lie between 1 and the {end} fine steps; raise fine_steps")
    fine = fine_solution(denoiser, x_T, times=times)
    nothing = torch.zeros_like(x_T)
    ways = {0: _Way(0.0, (0,), x_T, nothing, nothing)}
    for i in range(num_steps):
        left = num_steps - 1 - i  # steps still to come after this one
        arrived: dict[int, _Way] = {}
        for k, way in ways.items():
            x_0_hat = denoiser(way.x, rows_at(times[k].item(), x_T))
            for j in range(k + 1, end - left + 1) if left else [end]:
                *_, call = sampler.table(steps_of(denoiser.schedule, times[[*way.path, j]]))
                x, memory = after(call, way.x, x_0_hat, way.memory, way.last)
                cost = (x - fine[j]).square().mean().item()
                if j not in arrived or cost < arrived[j].cost:
                    arrived[j] = _Way(cost, (*way.path, j), x, memory, x_0_hat)
        ways = arrived
        if on_step is not None:
            on_step(i)
    return times[list(ways[end].path)].tolist()


def _checked(sampler: Sampler, schedule: Schedule) -> Tabular:
    """The sampler, if each of its steps is one call and draws no noise."""
    if isinstance(sampler, Tabular):
        calls = list(sampler.table(steps_of(schedule, time_grid(schedule, 3))))
        if [call.step_index for call in calls] == [0, 1, 2] and not any(call.of_noise for call in calls):
            return sampler
    eta = f" with eta={sampler.eta:g}" if isinstance(sampler, DDIM) else ""
    raise UserError(
        f"times are searched for samplers that call the network once a step and draw no noise, such as unipc, "
        f"not for {sampler.name}{eta}"
    )


def fine_solution(
    denoiser: AnyDenoiser, x_T: Float[Tensor, "b c h w"], *, times: Float[Tensor, " n1"]
) -> list[Float[Tensor, "b c h w"]]:
    """x at each of the times, by Heun's method."""
    seen: list[Tensor] = []
    last = Heun().sample(denoiser, x_T, times=times, callback=lambda index, t, x_t, x_0_hat: seen.append(x_t))
    return [*seen, last]


def error_of(
    sampler: Sampler, denoiser: AnyDenoiser, x_T: Float[Tensor, "b c h w"], *, exact: Float[Tensor, "b c h w"]
) -> float:
    """Root mean square distance of a sampler's pictures from the exact ones."""
    return (sampler.sample(denoiser, x_T) - exact).square().mean().sqrt().item()


def errors_of_grids(
    denoiser: AnyDenoiser,
    x_T: Float[Tensor, "b c h w"],
    *,
    sampler: Sampler,
    times: Sequence[float],
    fine_steps: int,
) -> dict[str, float]:
    """The error of the sampler by `times`, as "searched", and by each of the common spacings."""
    exact = fine_solution(denoiser, x_T, times=fine_grid(denoiser.schedule, fine_steps))[-1]
    grids = {"searched": replace(sampler, times=times)}
    grids |= {spacing: replace(sampler, spacing=spacing) for spacing in SPACINGS}
    return {grid: error_of(spaced, denoiser, x_T, exact=exact) for grid, spaced in grids.items()}
