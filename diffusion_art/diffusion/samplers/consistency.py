"""Sampling of distilled students: multistep consistency sampling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diffusion_art.diffusion.samplers.base import Tabular
from diffusion_art.diffusion.samplers.table import Call, Step


@dataclass(frozen=True)
class Consistency(Tabular):
    """Take x_0_hat for the picture, noise it afresh down to the next time, again.

        x_s = alpha_s x_0_hat + sigma_s eps

    For distilled students (distillation.py), whose x_0_hat is the end of an ODE; one step draws no noise. The x_0_hat
    of other networks is a mean over pictures, and what comes out then is too smooth.

    Paper: Song et al. 2023, Algorithm 1, https://arxiv.org/abs/2303.01469
    """

    name = "consistency"
    title = "LCM"

    num_steps: int = 4

    def table(self, steps: Iterable[Step]) -> Iterator[Call]:
        for step in steps:
            yield Call(step.index, step.t, of_x=0.0, of_x0=step.alpha_next, of_noise=step.sigma_next)
