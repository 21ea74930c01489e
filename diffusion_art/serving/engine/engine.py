"""The engine: a resident set of pictures, moved on one network call at a time.

    engine = Engine(model); engine.start()
    ticket, = engine.submit([Job("a red house", seed=3, sampler=DPMSolverPP2M(num_steps=20))])
    picture = ticket.result.result()          # uint8 [h w 3]

One thread runs the loop. At each tick it lets go of what was cancelled, takes the pictures whose turn it is
(`jobs.py`), calls the network once for all of them (`batch.py`), and hands out previews and finished pictures.
Pictures join and leave at any tick, at any point of their schedule: a new one waits for the call under way, not for
the picture under way (continuous batching; Yu et al. 2022, Orca,
https://www.usenix.org/conference/osdi22/presentation/yu).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import InvalidStateError
from dataclasses import dataclass

import numpy as np
import torch

from diffusion_art.devices import computes_in_bf16, precision_named
from diffusion_art.diffusion.samplers import Tabular
from diffusion_art.models.text_to_image import Network, TextToImage
from diffusion_art.serving.engine.batch import LoopSlot, Slot, Stepper
from diffusion_art.serving.engine.jobs import (
    Busy,
    EngineStats,
    Job,
    Stopping,
    Ticket,
    TickTime,
    bucket_of,
    buckets,
    choose,
    deadline,
)
from diffusion_art.sizes import Size
from diffusion_art.tensors import to_uint8

__all__ = ["Busy", "Engine", "EngineStats", "Job", "Stopping", "Ticket"]

OnPreview = Callable[[int, int, np.ndarray], None]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Entry:
    """A job in the engine; its slot from its first tick on."""

    job: Job
    ticket: Ticket
    number: int  # within its submission
    deadline: float
    on_preview: OnPreview | None
    alone: bool  # its network calls are not shared
    slot: Slot | LoopSlot | None = None
    previewed: int = 0

    @property
    def rows(self) -> int:
        if self.slot is not None:
            return self.slot.rows
        return 2 if self.job.guided_at(1.0) else 1

    def preview_due(self) -> bool:
        """After 1/(n + 1), 2/(n + 1), ... of the calls; the first after the second at the latest."""
        due = (self.previewed + 1) * self.ticket.calls // (self.job.previews + 1)
        return self.previewed < self.job.previews and self.ticket.calls_done >= max(
            1, min(due, 2) if self.previewed == 0 else due
        )


class Engine:
    """Paints jobs, many at a time. Its methods may be called from any thread.

    `max_rows` is the largest batch of one network call; a guided picture takes two rows of it. At most `max_jobs`
    pictures are in the engine, waiting ones included. `precision` is `auto` (bf16 where the device computes in
    it), `fp32` or `bf16`; in fp32 a picture is the same alone and among others but for rounding. The loop
    computes on `cores` of the processor; None: as many as torch takes.
    """

    def __init__(
        self,
        model: TextToImage,
        *,
        max_rows: int = 64,
        max_jobs: int = 64,
        precision: str = "auto",
        cores: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_rows < 2 or max_jobs < 1:
            raise ValueError(
                f"max_rows={max_rows} must be at least 2, for guidance, and max_jobs={max_jobs} at least 1"
            )
        self.model = model
        self.max_rows, self.max_jobs = max_rows, max_jobs
        self.precision = autocast_dtype(precision, model.device)
        self._stepper = Stepper(model, precision=self.precision)
        self._sizes = buckets(max_rows)
        self._cores = cores
        self._clock = clock
        self._entries: list[_Entry] = []
        self._tick_time = TickTime()
        self._changed = threading.Condition()
        self._stopping = False
        self._tick_began: float | None = None
        self._counts: dict[str, int] = dict.fromkeys(
            ("ticks", "rows", "rows_padded", "finished", "failed", "cancelled"), 0
        )
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # ------------------------------------------------------------------ from other threads

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""
        return self._thread.is_alive()

    def submit(self, jobs: Sequence[Job], *, on_preview: OnPreview | None = None) -> list[Ticket]:
        """Take all of the jobs, or none.

        `on_preview(job_index, preview_number, uint8 [h w 3])` is called on the engine's thread and must return at
        once.

        Raises:
            Busy: there is no room; it says when to try again.
            Stopping: the engine is ending.
        """
        calls = [self._stepper.num_calls(job.sampler) for job in jobs]
        with self._changed:
            if self._stopping:
                raise Stopping("the engine is stopping")
            if len(self._entries) + len(jobs) > self.max_jobs:
                raise Busy(self._wait_s(len(self._entries) + len(jobs) - self.max_jobs))
            now = self._clock()
            entries = [
                _Entry(
                    job,
                    Ticket(n),
                    number,
                    deadline(now, calls=n, tick_s=self._tick_time.mean_s),
                    on_preview,
                    alone=not isinstance(job.sampler, Tabular),
                )
                for number, (job, n) in enumerate(zip(jobs, calls, strict=True))
            ]
            self._entries += entries
            self._changed.notify()
        for entry in entries:
            entry.ticket.result.add_done_callback(lambda _: self._wake())
        return [entry.ticket for entry in entries]

    def stop(self, *, drain_s: float = 30.0) -> None:
        """Take no more, finish what there is within `drain_s` seconds, fail the rest with Stopping, end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(drain_s)
        self._drop(list(self._entries), Stopping("the engine stopped before the picture was done"))
        with self._changed:
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def use(self, network: Network) -> None:
        """Call this in the backbone's place, from the next tick on. It answers up to `max_rows` rows."""
        self._stepper.network = network

    def stats(self) -> EngineStats:
        with self._changed:
            running = sum(entry.slot is not None for entry in self._entries)
            began = self._tick_began
            return EngineStats(
                jobs_waiting=len(self._entries) - running,
                jobs_running=running,
                tick_s=self._tick_time.mean_s,
                painting_s=self._tick_time.sum_s,
                last_tick_age_s=0.0 if began is None else self._clock() - began,
                compiled=self._stepper.network is not None,
                **self._counts,
            )

    # ------------------------------------------------------------------ the loop

    def _run(self) -> None:
        if self._cores is not None:
            torch.set_num_threads(self._cores)
            torch.get_num_threads()  # else this thread's first operation takes the number that any thread set last
        with self._stepper.session():
            self._loop()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._tick_began = None
                while not self._entries and not self._stopping:
                    self._changed.wait()
                if not self._entries:
                    return
                self._tick_began = self._clock()
                self._let_go([entry for entry in self._entries if entry.ticket.result.cancelled()], "cancelled")
                candidates = [(entry.deadline, entry.rows, entry) for entry in self._entries]
            chosen = choose(candidates, max_rows=self.max_rows)
            for entries in _sharing(chosen):
                self._tick(entries)

    def _tick(self, entries: list[_Entry]) -> None:
        """One network call for these. If it fails, each of them is tried alone, so that one fails alone."""
        began = time.perf_counter()
        ready = [entry for entry in entries if self._begin(entry)]
        if not ready:
            return
        try:
            self._advance(ready)
        except Exception as error:
            if len(ready) == 1:
                self._drop(ready, error)
                return
            log.warning("a step of %d pictures failed (%s); trying them one by one", len(ready), type(error).__name__)
            for entry in ready:
                self._tick([entry])
            return
        self._tick_time.add(time.perf_counter() - began)
        for entry in ready:
            self._show(entry)

    def _begin(self, entry: _Entry) -> bool:
        if entry.slot is None:
            try:
                entry.slot = self._stepper.slot(entry.job)
            except Exception as error:
                self._drop([entry], error)
                return False
            if entry.slot.finished:  # its sampler asks nothing
                self._show(entry)
                return False
        return True

    def _advance(self, entries: Sequence[_Entry]) -> None:
        alone = entries[0].slot
        slots = [entry.slot for entry in entries if isinstance(entry.slot, Slot)]
        rows = alone.rows if isinstance(alone, LoopSlot) else sum(slot.rows for slot in slots)
        size = bucket_of(rows, self._sizes)
        if isinstance(alone, LoopSlot):
            self._stepper.advance_alone(alone, batch_size=size)
        else:
            self._stepper.advance(slots, batch_size=size)
        for entry in entries:
            entry.ticket.calls_done += 1
        with self._changed:
            self._counts["ticks"] += 1
            self._counts["rows"] += rows
            self._counts["rows_padded"] += size - rows

    def _show(self, entry: _Entry) -> None:
        """Hand out the finished picture, or a preview if one is due."""
        slot = entry.slot
        assert slot is not None
        try:
            if slot.finished:
                picture = to_uint8(self._stepper.picture(slot.x))
                with self._changed:
                    self._let_go([entry], "finished")
                if not entry.ticket.result.cancelled():
                    _settle(entry.ticket, picture)
            elif entry.on_preview is not None and entry.preview_due() and not entry.ticket.result.cancelled():
                assert slot.last is not None
                entry.previewed += 1
                entry.on_preview(entry.number, entry.previewed - 1, to_uint8(self._stepper.picture(slot.last)))
        except Exception as error:
            self._drop([entry], error)

    # ------------------------------------------------------------------ book-keeping

    def _drop(self, entries: Sequence[_Entry], error: Exception) -> None:
        with self._changed:
            self._let_go(entries, "failed")
        for entry in entries:
            _settle(entry.ticket, error)

    def _let_go(self, entries: Iterable[_Entry], outcome: str) -> None:
        """Forget these; holds the lock."""
        for entry in entries:
            if entry in self._entries:
                self._entries.remove(entry)
                self._counts[outcome] += 1

    def _wait_s(self, places: int) -> float:
        """About how long until so many places are free: the work of that many of the jobs nearest their end."""
        left = sorted(entry.ticket.calls - entry.ticket.calls_done for entry in self._entries)[:places]
        together = max(1, self.max_rows // 2)
        return max(1.0, self._tick_time.mean_s * sum(left) / min(together, max(1, len(left))))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()


def _sharing(chosen: Sequence[_Entry]) -> list[list[_Entry]]:
    """Who shares a network call: all of one size that can, and each of the others by itself."""
    alone = [[entry] for entry in chosen if entry.alone]
    together: dict[Size | None, list[_Entry]] = {}
    for entry in chosen:
        if not entry.alone:
            together.setdefault(entry.job.size, []).append(entry)
    return [*together.values(), *alone]


def _settle(ticket: Ticket, outcome: np.ndarray | Exception) -> None:
    """Give the ticket its outcome, unless it has one: cancelled by its owner, or failed by a stop."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, Exception):
            ticket.result.set_exception(outcome)
        else:
            ticket.result.set_result(outcome)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What the network computes in; None for its own float32.

    Raises:
        ValueError: no such precision.
    """
    named = precision_named(precision)
    if named not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision={precision!r} is not one of auto, fp32, bf16")
    if named == "auto":
        return torch.bfloat16 if computes_in_bf16(device) else None
    return torch.bfloat16 if named == "bf16" else None
