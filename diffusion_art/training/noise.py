"""Which noise a training picture is mixed with.

Every class maps pictures x_0 and their positions in the endless order to unit noise, a pure function of (seed,
positions, x_0), so that a resumed run, or one on other ranks, mixes the same. `experiments/immiscible.py` has some that
look at the picture.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from diffusion_art.training.seeding import Positions, noise_at


@runtime_checkable
class TrainingNoise(Protocol):
    """x_0 and the positions of its rows -> the noise of each row."""

    def __call__(
        self, x_0: Float[Tensor, "b c h w"], positions: Positions, *, seed: int
    ) -> Float[Tensor, "b c h w"]: ...


class Iid:
    """Noise that knows nothing of its picture."""

    def __call__(self, x_0: Float[Tensor, "b c h w"], positions: Positions, *, seed: int) -> Float[Tensor, "b c h w"]:
        return noise_at(positions, tuple(x_0.shape[1:]), seed=seed, device=x_0.device)
