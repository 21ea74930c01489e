"""What is asked of the engine, one picture at a time, and what it says when it cannot take more."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from diffusion_art.diffusion.guidance import within
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.sizes import Size


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
