"""The random numbers of a training step as functions of (seed, place), so that nothing needs to be remembered.

Times and caption dropout are drawn for all pictures of a step and sliced by rank and part; noise is drawn per picture
from its position in the endless order. A resumed run, or one on other ranks or in other parts, draws the same numbers.

Other devices draw other noise: a CPU has a generator for each picture, a CUDA device draws a batch in one go
(`philox.py`), so that no step waits for a loop over its pictures.

A `TrainingNoise` maps pictures x_0 and their positions in the endless order to unit noise, a pure function of (seed,
positions, x_0). `experiments/immiscible.py` has some that look at the picture. One whose pictures share their noises
says in `block` how many in a row do, so that no part of a step has a piece of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion_art.randomness import fold
from diffusion_art.tensors import Batch, sent
from diffusion_art.training.philox import normal_at

Positions = Iterable[int] | Int[Tensor, " b"]  # places in the endless order; a tensor is on the device already

TIMES, DROPOUT, NOISE, VAL_NOISE, POSTERIOR, UNITS = range(6)  # streams: independent uses of one seed


def generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(fold(*numbers))


def noise_at(
    positions: Positions,
    shape: tuple[int, ...],
    *,
    seed: int,
    stream: int = NOISE,
    device: torch.device | str = "cpu",
) -> Float[Tensor, " b *shape"]:
    """Unit noise, one independent draw per position; row `i` is the same in any batch."""
    if torch.device(device).type == "cuda":
        return normal_at(placed(positions, device), shape, key=fold(seed, stream))
    positions = [int(position) for position in positions]
    eps = torch.empty((len(positions), *shape), device=device)
    source = torch.Generator(device)
    for row, position in zip(eps, positions, strict=True):
        row.normal_(generator=source.manual_seed(fold(seed, stream, position)))
    return eps


def placed(positions: Positions, device: torch.device | str) -> Int[Tensor, " b"]:
    """Positions as a tensor on a device."""
    return sent(positions if isinstance(positions, Tensor) else torch.tensor(list(positions)), device)


@dataclass
class Draw:
    """The random part of one training step, for this rank's rows."""

    t: Float[Tensor, " b"]
    eps: Float[Tensor, "b c h w"]
    dropped: Bool[Tensor, " b"]  # True where the caption is withheld


def draw_step(
    batch: Batch,
    *,
    seed: int,
    global_batch_size: int,
    parts: int = 1,
    times: Callable[..., Tensor],
    caption_dropout: float,
    noise: Callable[[Positions], Tensor],
) -> Draw:
    """The draw of the step that trains on `batch`.

    Times and dropout are drawn for the whole step, which takes `parts` global batches, so that a step draws the same
    numbers in any number of parts. `noise` gives the noise of positions (`noise.py`).
    A CUDA device is sent one small tensor, and nothing waits for it.
    """
    pictures = global_batch_size * parts
    number = (batch.cursor - 1) // parts
    first = batch.positions[0] - number * pictures
    rows = slice(first, first + len(batch))
    device = batch.images.device
    t = times(pictures, generator=generator(seed, TIMES, number))[rows]
    dropped = torch.rand(pictures, generator=generator(seed, DROPOUT, number))[rows] < caption_dropout
    positions: Positions = batch.positions
    if device.type == "cuda":
        t, positions = _sent_together(t, batch.positions, device)
    return Draw(
        t=t.to(device, non_blocking=True),
        eps=noise(positions),
        dropped=dropped,
    )


def seed_units(batch: Batch, *, seed: int) -> None:
    """Let the units that a network drops on `batch`, for which torch's own generators are asked, be a function of the
    place where it begins: each part of a step, and each process, drops others.
    """
    torch.manual_seed(fold(seed, UNITS, batch.positions[0]))


def _sent_together(
    t: Float[Tensor, " b"], positions: list[int], device: torch.device
) -> tuple[Float[Tensor, " b"], Int[Tensor, " b"]]:
    """Times and positions on a device by one copy: as float64, which holds both without rounding."""
    both = sent(torch.stack([t.double(), torch.tensor(positions, dtype=torch.float64)]), device)
    return both[0].to(t.dtype), both[1].long()


def spread_times(positions: Iterable[int], *, device: torch.device | str = "cpu") -> Float[Tensor, " b"]:
    """Fixed times in (0, 1) for validation: the golden-ratio sequence, even over any run of positions."""
    golden = 0.6180339887498949
    t = torch.tensor([(0.5 + golden * position) % 1.0 for position in positions]).clamp(1e-3, 1.0 - 1e-3)
    return sent(t, device)


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
