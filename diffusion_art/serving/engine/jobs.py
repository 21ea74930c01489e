"""What is asked of the engine, one picture at a time, what it says when it cannot take more, and who goes next.

Each picture has a virtual deadline, set when it arrives and never moved: the moment by which it would be done if
the engine gave it one call in `stretch`. The earliest deadlines go first. So a short job overtakes long ones that came
not much earlier, and a long one that has waited overtakes short ones that come later: nobody starves, and everybody's
delay is in proportion to what they ask for (Liu & Layland 1973, https://doi.org/10.1145/321738.321743, with the
stretch of Bender et al. 1998 as the yardstick).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from diffusion_art.diffusion.guidance import within
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.sizes import Size

STRETCH = 4.0
Row = TypeVar("Row")


class Busy(Exception):
    """The queue is full; it will have moved on in about `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the queue is full, try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Stopping(Exception):
    """The engine finishes what it has and takes nothing more."""


@dataclass(frozen=True)
class Job:
    """One picture: what to paint and how.

    `interval`, `rescale` and `threshold` are guidance's (see `diffusion/guidance.py`). `previews` looks at x_0_hat are
    shown on the way, evenly spread, the first after the second network call at the latest. `size` (width, height) is
    one that the model was trained on; None: its square.
    """

    prompt: str
    seed: int
    sampler: Sampler
    guidance_scale: float = 1.0
    negative_prompt: str = ""
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    threshold: float = 0.0
    previews: int = 0
    size: Size | None = None

    def guided_at(self, t: float) -> bool:
        """Whether the network call at t is guided, and so costs two rows."""
        if self.guidance_scale == 1:
            return False
        return self.interval is None or within(t, self.interval)


class Ticket:
    """The receipt of a job.

    `result` becomes the picture, uint8 [h w 3], or raises what its step raised. `calls` network calls will be
    made for it (at most, where that depends on the picture), `calls_done` are.
    """

    def __init__(self, calls: int) -> None:
        self.result: Future[np.ndarray] = Future()
        self.calls = calls
        self.calls_done = 0

    def cancel(self) -> None:
        """The picture is not wanted any more: its slot is free when the step under way ends."""
        self.result.cancel()


@dataclass(frozen=True)
class EngineStats:
    """Counters since the start, and gauges of now."""

    jobs_waiting: int  # not yet begun
    jobs_running: int
    ticks: int  # network calls made
    rows: int  # rows of all their batches that belonged to a job
    rows_padded: int  # and that did not
    tick_s: float  # recent mean time of a tick
    painting_s: float  # in all ticks
    finished: int
    failed: int
    cancelled: int
    last_tick_age_s: float  # 0 while there is nothing to do
    compiled: bool  # whether a network made for this machine stands in for the model's own


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


class TickTime:
    """An exponential mean of tick times in seconds, each new one counting a tenth; `first_guess_s` before the first.

    `sum_s` is the sum of them all.
    """

    def __init__(self, *, first_guess_s: float = 0.1) -> None:
        self.mean_s = first_guess_s
        self.sum_s = 0.0
        self._seen = 0

    def add(self, seconds: float) -> None:
        self._seen += 1
        self.sum_s += seconds
        share = max(0.1, 1 / self._seen)
        self.mean_s += share * (seconds - self.mean_s)
