"""Noise that belongs to one image, not to its batch.

Each image has a seed and a CPU generator of its own. So row 7 of a batch is the same picture alone, in any
batch, in a grid and over HTTP, and on a GPU it starts from the same numbers as on a CPU.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from diffusion_art.errors import UserError

SEED_LIMIT = 2**32  # torch's CPU generator reads the low 32 bits only: larger seeds would repeat smaller ones
ASKED_LIMIT = 2**64  # other programs draw seeds up to here, and their users paste them


def seeds_from(first: int | None, count: int) -> list[int]:
    """`count` seeds that count up from the low 32 bits of `first`, which are all that matter; from any for None or -1.

    UserError for another one outside [0, 2^64).
    """
    if first is None or first == -1:
        first = secrets.randbelow(2**31)
    if not 0 <= first < ASKED_LIMIT:
        raise UserError(f"seed {first} is out of range; choose one from 0 to {ASKED_LIMIT - 1}, or -1 for any")
    return [(first + number) % SEED_LIMIT for number in range(count)]


def per_image_generators(seeds: Sequence[int]) -> list[Generator]:
    """One seeded CPU generator per image. UserError for a seed outside [0, 2^32)."""
    for seed in seeds:
        if not 0 <= seed < SEED_LIMIT:
            raise UserError(f"seed {seed} is out of range; choose one from 0 to {SEED_LIMIT - 1}")
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def unit_noise(generators: Sequence[Generator], shape: tuple[int, int, int]) -> Float[Tensor, "b c h w"]:
    """The next N(0, 1) image of `shape` (c, h, w) from each generator, float32 on the CPU.

    The numbers equal those of diffusers' `randn_tensor` with a list of generators.
    """
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


class NoiseSource:
    """All the noise that sampling one batch of images needs, a pure function of (seeds, step_index).

    Image i's generator gives first its x_T, then the fresh noise of step 0, 1, ...; a step asked for again,
    or out of order, is found by drawing from the start.
    """

    def __init__(
        self, seeds: Sequence[int], shape: tuple[int, int, int], *, device: torch.device | str = "cpu"
    ) -> None:
        self.seeds = list(seeds)
        self.shape = shape
        self.device = torch.device(device)
        self._rewind()

    def x_T(self) -> Float[Tensor, "b c h w"]:
        """The pure noise that sampling starts from."""
        return self._draw(0)

    def __call__(self, step_index: int) -> Float[Tensor, "b c h w"]:
        """The fresh noise of a stochastic sampler's step."""
        return self._draw(step_index + 1)

    def _rewind(self) -> None:
        self._generators = per_image_generators(self.seeds)
        self._drawn = 0

    def _draw(self, number: int) -> Tensor:
        if number < self._drawn:
            self._rewind()
        while self._drawn < number:
            unit_noise(self._generators, self.shape)
            self._drawn += 1
        self._drawn += 1
        return unit_noise(self._generators, self.shape).to(self.device)
