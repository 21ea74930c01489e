"""Who goes next: which pictures share the next network call.

Each picture has a virtual deadline, set when it arrives and never moved: the moment by which it would be done if
the engine gave it one call in `stretch`. The earliest deadlines go first. So a short job overtakes long ones that came
not much earlier, and a long one that has waited overtakes short ones that come later: nobody starves, and everybody's
delay is in proportion to what they ask for (Liu & Layland 1973, https://doi.org/10.1145/321738.321743, with the
stretch of Bender et al. 1998 as the yardstick).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

STRETCH = 4.0

Row = TypeVar("Row")


def deadline(arrived_s: float, *, calls: int, tick_s: float, stretch: float = STRETCH) -> float:
    """When a job of `calls` network calls that arrived at `arrived_s` should be done, on the same clock."""
    return arrived_s + stretch * calls * tick_s


def buckets(max_rows: int) -> list[int]:
    """Batch sizes the network is called with: 1, the even ones up to 64, then steps of a sixteenth and less.

    Not too many, for kernels that prepare for each; yet guided pictures, of two rows each, need no padding up to 64.
    """
    sizes, size = [1], 2
    while size < max_rows:
        sizes.append(size)
        size += max(2, 2 ** (size.bit_length() - 5))
    return sorted({*sizes, max_rows})


def bucket_of(rows: int, sizes: Sequence[int]) -> int:
    """The smallest batch size that holds so many rows."""
    return next(size for size in sizes if size >= rows)


def choose(candidates: Iterable[tuple[float, int, Row]], *, max_rows: int) -> list[Row]:
    """Of (deadline, rows, job), the jobs that share the next call: by deadline, as many as fit.

    One that does not fit any more lets smaller ones behind it pass: it goes first next time.
    """
    chosen, free = [], max_rows
    for _, rows, job in sorted(candidates, key=lambda candidate: candidate[0]):
        if rows <= free:
            chosen.append(job)
            free -= rows
        if free == 0:
            break
    return chosen
