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
    def quantile(self, u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The time below which a share u of the density lies, before the resolution shift."""

    def __call__(self, count: int, *, generator: Generator) -> Float[Tensor, " b"]:
        """`count` times in (0, 1), float32, on the generator's device."""
        device = generator.device
        u = torch.rand(count, generator=generator, device=device)
        if self.stratified:
            u = (torch.randperm(count, generator=generator, device=device) + u) / count
        t = resolution_shift(self.quantile(u.clamp(MARGIN, 1 - MARGIN)), shift=self.shift)
        return t.clamp(MARGIN, 1 - MARGIN)


class Uniform(Times):
    """Independent uniform times."""

    def __init__(self, *, shift: float = 1.0) -> None:
        super().__init__(stratified=False, shift=shift)

    def quantile(self, u: Tensor) -> Tensor:
        return u


class Stratified(Times):
    """Uniform times, one in each of `count` equal slices of [0, 1].

    Paper: Kingma et al. 2021 (VDM), appendix I.1, https://arxiv.org/abs/2107.00630
    """

    def __init__(self, *, shift: float = 1.0) -> None:
        super().__init__(stratified=True, shift=shift)

    def quantile(self, u: Tensor) -> Tensor:
        return u


class LogitNormal(Times):
    """logit(t) ~ N(mean, std^2): the middle times, where learning is hardest, come most often.

    A larger mean looks at noisier images. Paper: Esser et al. 2024 (SD3), section 3.1,
    https://arxiv.org/abs/2403.03206
    """

    def __init__(self, *, mean: float = 0.0, std: float = 1.0, stratified: bool = True, shift: float = 1.0) -> None:
        super().__init__(stratified=stratified, shift=shift)
        if not std > 0:
            raise UserError(f"times std must be positive, not {std}; SD3 uses objective.times.std=1.0")
        self.mean = mean
        self.std = std

    def quantile(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


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

    def quantile(self, u: Tensor) -> Tensor:
        return ((u * self.num_steps).floor() + 1) / self.num_steps
