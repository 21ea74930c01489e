"""Random numbers of a training step as functions of (seed, place), so that nothing needs to be remembered.

Times and caption dropout are drawn for all pictures of a step and sliced by rank and part; noise is drawn per picture
from its position in the endless order. A resumed run, or one on other ranks or in other parts, draws the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion_art.tensors import Batch

TIMES, DROPOUT, NOISE, VAL_NOISE = range(4)  # streams: independent uses of one seed
MASK = 2**64 - 1


def fold(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several numbers (SplitMix64 steps)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & MASK)) + 0x9E3779B97F4A7C15 & MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state >> 1


def generator(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(fold(*numbers))


def noise_at(
    positions: Iterable[int],
    shape: tuple[int, ...],
    *,
    seed: int,
    stream: int = NOISE,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "b c h w"]:
    """Unit noise, one independent draw per position; row `i` is the same in any batch."""
    positions = list(positions)
    eps = torch.empty((len(positions), *shape), device=device)
    source = torch.Generator(device)
    for row, position in zip(eps, positions, strict=True):
        row.normal_(generator=source.manual_seed(fold(seed, stream, position)))
    return eps


@dataclass
class Draw:
    """The random part of one training step, for this rank's rows."""

    t: Float[Tensor, " b"]
    eps: Float[Tensor, "b c h w"]
    dropped: Bool[Tensor, " b"]  # True where the caption is withheld


def draw_step(
    batch: Batch,
    shape: tuple[int, ...],
    *,
    seed: int,
    global_batch_size: int,
    parts: int = 1,
    times: Callable[..., Tensor],
    caption_dropout: float,
    noise: Callable[[list[int]], Tensor] | None = None,
) -> Draw:
    """The draw of the step that trains on `batch`, whose latents have `shape` (c, h, w).

    Times and dropout are drawn for the whole step, which takes `parts` global batches, so that a step draws the same
    numbers in any number of parts. `noise` gives the noise of positions, where it is not to be any noise (`noise.py`).
    """
    pictures = global_batch_size * parts
    number = (batch.cursor - 1) // parts
    first = batch.positions[0] - number * pictures
    rows = slice(first, first + len(batch))
    device = batch.images.device
    t = times(pictures, generator=generator(seed, TIMES, number))[rows]
    dropped = torch.rand(pictures, generator=generator(seed, DROPOUT, number))[rows] < caption_dropout
    return Draw(
        t=t.to(device, non_blocking=True),
        eps=noise(batch.positions) if noise else noise_at(batch.positions, shape, seed=seed, device=device),
        dropped=dropped,
    )


def spread_times(positions: Iterable[int]) -> Float[Tensor, " b"]:
    """Fixed times in (0, 1) for validation: the golden-ratio sequence, even over any run of positions."""
    golden = 0.6180339887498949
    return torch.tensor([(0.5 + golden * position) % 1.0 for position in positions]).clamp(1e-3, 1.0 - 1e-3)
