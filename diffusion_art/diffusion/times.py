"""Which diffusion times training looks at: a density on (0, 1).

Every class draws `count` times for a whole global batch at once, from a given generator and on its device,
so that the draw depends on (seed, step) and on nothing else. The stratified ones put one time into each of
`count` slices of equal probability, in random order: the same density for each image, far less variance of
the batch's loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError

MARGIN = 1e-5  # times stay this far from 0 and 1, where a weight or a slope may be infinite


def resolution_shift(t: Float[Tensor, " b"], *, shift: float) -> Float[Tensor, " b"]:
    """Move times towards noise for larger images: shift t / (1 + (shift - 1) t), shift = 1 moves nothing.

    Use it when the schedule itself is not shifted. Paper: Esser et al. 2024 (SD3), Eq. 23,
    https://arxiv.org/abs/2403.03206
    """
    return shift * t / (1 + (shift - 1) * t)


class Times(ABC):
    """A density of training times, drawn through uniform numbers."""

    def __init__(self, *, stratified: bool, shift: float) -> None:
        if not (math.isfinite(shift) and shift > 0):
            raise UserError(f"times shift must be a positive number, not {shift}; 1.0 is no shift")
        self.stratified = stratified
        self.shift = shift

    @abstractmethod
    def quantile(self, u: Float[Tensor, " b"], schedule: Schedule | None) -> Float[Tensor, " b"]:
        """The time below which a share u of the density lies, before the resolution shift."""

    def __call__(self, count: int, *, generator: Generator, schedule: Schedule | None = None) -> Float[Tensor, " b"]:
        """`count` times in (0, 1), float32, on the generator's device; a density in sigma needs the `schedule`."""
        device = generator.device
        u = torch.rand(count, generator=generator, device=device)
        if self.stratified:
            u = (torch.randperm(count, generator=generator, device=device) + u) / count
        t = resolution_shift(self.quantile(u.clamp(MARGIN, 1 - MARGIN), schedule), shift=self.shift)
        return t.clamp(MARGIN, 1 - MARGIN)


class Uniform(Times):
    """Independent uniform times."""

    def __init__(self, *, shift: float = 1.0) -> None:
        super().__init__(stratified=False, shift=shift)

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        return u


class Stratified(Times):
    """Uniform times, one in each of `count` equal slices of [0, 1].

    Paper: Kingma et al. 2021 (VDM), appendix I.1, https://arxiv.org/abs/2107.00630
    """

    def __init__(self, *, shift: float = 1.0) -> None:
        super().__init__(stratified=True, shift=shift)

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        return u


class LogitNormal(Times):
    """logit(t) ~ N(mean, std^2): the middle times, where learning is hardest, come most often.

    A larger mean looks at noisier images. Paper: Esser et al. 2024 (SD3), section 3.1,
    https://arxiv.org/abs/2403.03206
    """

    def __init__(self, *, mean: float = 0.0, std: float = 1.0, stratified: bool = True, shift: float = 1.0) -> None:
        super().__init__(stratified=stratified, shift=shift)
        self.mean, self.std = mean, _spread(std, usual="SD3 uses objective.times.std=1.0")

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


class LogNormal(Times):
    """ln(sigma / alpha) ~ N(mean, std^2), EDM's noise levels, whatever the schedule; its P_mean and P_std.

    On the straight path t is the share of noise, and this is `LogitNormal`. EDM takes (-1.2, 1.2), EDM2 at 64 px
    (-0.8, 1.6). Paper: Karras et al. 2022, Table 1, https://arxiv.org/abs/2206.00364
    """

    def __init__(self, *, mean: float = -1.2, std: float = 1.2, stratified: bool = True) -> None:
        super().__init__(stratified=stratified, shift=1.0)
        self.mean, self.std = mean, _spread(std, usual="EDM uses objective.times.std=1.2")

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        if schedule is None:
            raise ValueError("LogNormal times are drawn by their noise level: give them the schedule")
        return schedule.t_of_log_snr(-2 * (self.mean + self.std * torch.special.ndtri(u)))


def _spread(std: float, *, usual: str) -> float:
    if not std > 0:
        raise UserError(f"times std must be positive, not {std}; {usual}")
    return std


class Stops(Times):
    """Where a sampler of `num_steps` = n steps even in t calls its network: k / n for k = 1 ... n, equally often.

    For networks that will only ever be asked about these, as a few-step student. Samplers whose number of steps
    divides n stop at some of them.
    """

    def __init__(self, *, num_steps: int) -> None:
        super().__init__(stratified=True, shift=1.0)
        if num_steps < 1:
            raise UserError(f"times num_steps must be at least 1, not {num_steps}; a student of 4 steps takes 4")
        self.num_steps = num_steps

    def quantile(self, u: Tensor, schedule: Schedule | None) -> Tensor:
        return ((u * self.num_steps).floor() + 1) / self.num_steps
