"""The pictures of `/sdapi` that are on their way: how far they are, and an end to them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from diffusion_art.serving.api.sdapi_schema import Progress, State
from diffusion_art.serving.engine.jobs import Job, Ticket


@dataclass(eq=False)
class Work:
    """One request: its tickets, whose they are, and the latest look at its first picture."""

    jobs: Sequence[Job]
    customer: str | None
    tickets: Sequence[Ticket] = ()
    began: float = field(default_factory=time.monotonic)
    look: np.ndarray | None = None
    interrupted: bool = False

    def on_preview(self, index: int, number: int, pixels: np.ndarray) -> None:
        """Called on the engine's thread."""
        if index == 0:
            self.look = pixels

    @property
    def calls(self) -> tuple[int, int]:
        """Network calls done, and to do in all."""
        return sum(ticket.calls_done for ticket in self.tickets), sum(ticket.calls for ticket in self.tickets)


class Works:
    """Those of a server. A customer sees and interrupts its own only."""

    def __init__(self) -> None:
        self._works: list[Work] = []

    @contextmanager
    def going(self, work: Work) -> Iterator[Work]:
        """Inside the block the work is on its way."""
        self._works.append(work)
        try:
            yield work
        finally:
            self._works.remove(work)

    def of(self, customer: str | None) -> list[Work]:
        return [work for work in self._works if work.customer == customer]

    def interrupt(self, customer: str | None) -> None:
        """End what is unfinished; its requests are answered with what is finished."""
        for work in self.of(customer):
            work.interrupted = True
            for ticket in work.tickets:
                ticket.cancel()

    def progress(self, customer: str | None) -> tuple[Progress, Work | None]:
        """That of a customer's works together, and the oldest of them."""
        works = self.of(customer)
        if not works:
            return Progress(), None
        done, calls = (sum(each) for each in zip(*(work.calls for work in works)))
        share = done / max(1, calls)
        first, taken_s = works[0], time.monotonic() - works[0].began
        steps = first.jobs[0].sampler.num_steps
        finished = sum(ticket.result.done() for ticket in first.tickets)
        running = next((ticket for ticket in first.tickets if not ticket.result.done()), None)
        step = steps if running is None else steps * running.calls_done // max(1, running.calls)
        state = State(
            interrupted=first.interrupted,
            job="txt2img",
            job_count=sum(len(work.jobs) for work in works),
            job_no=min(finished, len(first.jobs) - 1),
            sampling_step=step,
            sampling_steps=steps,
        )
        eta_s = taken_s * (1 - share) / share if share else 0.0
        return Progress(progress=round(share, 4), eta_relative=round(eta_s, 2), state=state), first
