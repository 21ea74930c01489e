"""Euler's and Heun's method for the probability-flow ODE, in straight coordinates.

In z = x / (alpha + sigma), u = sigma / (alpha + sigma), every schedule is flow matching: z = (1 - u) x_0 + u eps, and
the ODE reads

    dz/du = eps_hat - x_0_hat = (z - x_0_hat) / u

the form of Karras et al. 2022, Eq. 3 (https://arxiv.org/abs/2206.00364), but finite at both ends. Euler there is DDIM
with eta = 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diffusion_art.diffusion.samplers.base import Tabular
from diffusion_art.diffusion.samplers.table import Call, Step


@dataclass(frozen=True)
class Euler(Tabular):
    """Euler steps of the probability-flow ODE. First order; draws no noise.

        z_next = z + (u_next - u) (z - x_0_hat) / u

    Paper: Karras et al. 2022, Algorithm 1 without its correction, https://arxiv.org/abs/2206.00364
    """

    name = "euler"
    title = "Euler"

    def table(self, steps: Iterable[Step]) -> Iterator[Call]:
        for step in steps:
            yield euler_call(step)


@dataclass(frozen=True)
class Heun(Tabular):
    """Heun steps of the same ODE: an Euler step, then the mean of the slopes at both ends. Draws no noise.

        z_guess = z + (u_next - u) d,    z_next = z + (u_next - u) (d + d_next) / 2,    d = (z - x_0_hat) / u

    with d_next the slope at z_guess. The memory is z after half an Euler step: what the second slope's half is added
    to. Second order. Each step calls the network twice, save one that ends at sigma = 0, which stays Euler's: 2 n - 1
    calls.

    Paper: Karras et al. 2022, Algorithm 1, https://arxiv.org/abs/2206.00364
    """

    name = "heun"
    title = "Heun"

    num_steps: int = 20

    def table(self, steps: Iterable[Step]) -> Iterator[Call]:
        for step in steps:
            guess = euler_call(step)
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


def euler_call(step: Step) -> Call:
    kept = step.u_next / step.u
    return Call(step.index, step.t, of_x=kept * step.norm_next / step.norm, of_x0=step.norm_next * (1 - kept))
