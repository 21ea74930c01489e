"""From jobs to pictures: orders to the engine, and its answers. Only this part of the HTTP face knows the engine.

Pictures are encoded on threads of their own, so that neither the event loop nor the engine waits for it.

Those that were answered as a url are kept in memory for a while, under names that cannot be guessed. Nothing touches
the disk, so nothing is left behind by a server that dies.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffusion_art import __version__
from diffusion_art.runs import Run
from diffusion_art.serving.about import describe
from diffusion_art.serving.api.errors import ApiError, internal, invalid, out_of_service, too_many
from diffusion_art.serving.api.metrics import Metrics
from diffusion_art.serving.engine.engine import Engine
from diffusion_art.serving.engine.jobs import Busy, Job, Stopping, Ticket
from diffusion_art.serving.orders import Orders, Output, Size
from diffusion_art.serving.settings import Settings
from diffusion_art.sheets import INFOTEXT, encode

log = logging.getLogger(__name__)

_ENDING = "The server is ending; try again when it is back."


class Studio:
    """A run, its engine, and what requests need beside them. `close` ends it all."""

    def __init__(self, run: Run, engine: Engine, settings: Settings | None = None) -> None:
        self.run, self.engine = run, engine
        self.settings = settings or Settings()
        limits = self.settings.limits
        self.rates = Rates(limits.rate_per_minute)
        self.files = Files(lifetime_s=limits.file_lifetime_s, max_bytes=limits.max_file_bytes)
        self.draining = False
        self.metrics = Metrics()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="encode")
        self.model = describe(run, self.settings, max_jobs=engine.max_jobs)
        self.orders = Orders(run, self.settings, self.model)
        about = {"model": self.model.id, "checkpoint": self.model.checkpoint, "version": __version__}
        self.metrics.watch(engine.stats, about)

    @property
    def ready(self) -> bool:
        """Whether pictures are taken on."""
        return self.engine.alive and not self.draining

    def close(self, *, drain_s: float = 0.0) -> None:
        """Finish what there is within `drain_s` seconds, and end the engine."""
        self.draining = True
        self.engine.stop(drain_s=drain_s)
        self._pool.shutdown()

    def order(
        self,
        jobs: Sequence[Job],
        *,
        customer: str | None = None,
        on_preview: Callable[[int, int, np.ndarray], None] | None = None,
    ) -> list[Ticket]:
        """Hand the jobs to the engine: all, or none.

        Raises:
            ApiError: 429 when the queue is full or the customer has had its share, 503 when the server ends.
        """
        if not self.ready:
            raise out_of_service(_ENDING if self.draining else "The engine has died; its log says more.")
        if len(jobs) > self.engine.max_jobs:
            raise invalid(
                f"{len(jobs)} pictures are more than the {self.engine.max_jobs} that may be on their way at a time.",
                code="too_many_pictures",
            )
        self.rates.take(customer, len(jobs))
        began = time.monotonic()
        try:
            tickets = self.engine.submit(jobs, on_preview=on_preview)
        except (Busy, Stopping) as refusal:
            self.rates.give_back(customer, len(jobs))
            raise _not_taken(refusal) from None
        for ticket, job in zip(tickets, jobs, strict=True):
            ticket.result.add_done_callback(self._painted(job.sampler.num_steps, began))
        return tickets

    async def picture(self, ticket: Ticket) -> np.ndarray:
        """The finished picture, uint8 [h w 3]; ApiError 500 or 503 where there is none."""
        await _done(ticket.result)
        return self.outcome(ticket.result)

    def outcome(self, result: Future[np.ndarray]) -> np.ndarray:
        """What a future that is done holds; its error as an ApiError."""
        if result.cancelled():
            raise out_of_service(_ENDING)
        error = result.exception()
        if error is None:
            return result.result()
        if isinstance(error, Stopping):
            raise out_of_service(_ENDING)
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise out_of_service("Out of memory; try again, or with fewer pictures at a time.")
        raise internal(error)

    async def off_the_loop(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(*arguments)`, on a thread for encoding."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def encoded(self, pixels: np.ndarray, job: Job, output: Output, *, story: bool = True) -> bytes:
        """The picture as the request wants it, with what it was painted from inside."""
        content = encode(
            output.size.fill(pixels),
            format=output.format,
            quality=output.quality,
            story=self.story(job, output.size) if story else None,
        )
        self.metrics.encoded(output.format, len(content))
        return content

    def story(self, job: Job, size: Size) -> dict[str, Any]:
        """What a picture was painted from, as plain data for its file."""
        asked = {"prompt": job.prompt, "negative_prompt": job.negative_prompt, "seed": job.seed}
        guidance = {"interval": job.interval, "rescale": job.rescale, "threshold": job.threshold}
        how = {"sampler": job.sampler, "guidance_scale": job.guidance_scale}
        parameters = self.run.parameters(**asked, **how, size=size.painted, model=self.model.id, more=size.story())
        return {INFOTEXT: parameters, **asked, **self.run.story(**how, guidance=guidance)}

    def _painted(self, num_steps: int, began: float) -> Callable[[Future[np.ndarray]], None]:
        def count(result: Future[np.ndarray]) -> None:
            if not result.cancelled() and result.exception() is None:
                self.metrics.painted(num_steps, time.monotonic() - began)

        return count


def _not_taken(refusal: Busy | Stopping) -> ApiError:
    if isinstance(refusal, Stopping):
        return out_of_service(_ENDING)
    return too_many(
        f"The queue is full; come back in {max(1, round(refusal.retry_after_s))} s.",
        code="queue_full",
        retry_after_s=refusal.retry_after_s,
    )


async def _done(future: Future[np.ndarray]) -> None:
    """Return when `future` is done, however it ended. Ending the wait does not touch the future."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    future.add_done_callback(lambda _: post(loop, done.set))
    await done.wait()


def post(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *arguments: Any) -> None:
    """Have a loop make a call, from any thread; nothing where the loop is closed, since nobody waits then."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        log.debug("the event loop is closed already")


class Rates:
    """A token bucket for each customer: `per_minute` pictures a minute, and as many at once after a pause."""

    def __init__(
        self, per_minute: float | None, *, remembered: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_minute = per_minute
        self.remembered = remembered
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # customer -> (pictures left, when)

    def take(self, customer: str | None, pictures: int) -> None:
        """Count so many pictures for a customer; None is nobody in particular, and has no limit.

        Raises:
            ApiError: 429, with the time until they would be granted.
        """
        if customer is None or self.per_minute is None:
            return
        now = self._clock()
        left, when = self._buckets.pop(customer, (self.per_minute, now))
        left = min(self.per_minute, left + (now - when) * self.per_minute / 60)
        granted = left >= min(pictures, self.per_minute)  # one larger than the bucket takes it whole
        self._buckets[customer] = (left - pictures if granted else left, now)
        if len(self._buckets) > self.remembered:
            self._buckets.popitem(last=False)
        if not granted:
            wait_s = (min(pictures, self.per_minute) - left) * 60 / self.per_minute
            raise too_many(
                f"This token may ask for {self.per_minute:g} pictures a minute; come back in {wait_s:.0f} s.",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
            )

    def give_back(self, customer: str | None, pictures: int) -> None:
        """Count so many pictures of a customer as not asked for: they were granted, and not taken on."""
        if customer in self._buckets and self.per_minute is not None:
            left, when = self._buckets[customer]
            self._buckets[customer] = (min(self.per_minute, left + pictures), when)


@dataclass(frozen=True)
class File:
    content: bytes
    media_type: str
    expires: float  # on the clock of its `Files`


class Files:
    """Each file lives `lifetime_s`; when all of them exceed `max_bytes`, the oldest go before their time."""

    def __init__(self, *, lifetime_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.lifetime_s, self.max_bytes = lifetime_s, max_bytes
        self.bytes = 0
        self._clock = clock
        self._files: OrderedDict[str, File] = OrderedDict()  # oldest first, so the first to expire

    def __len__(self) -> int:
        self._expire()
        return len(self._files)

    def put(self, content: bytes, media_type: str) -> str:
        """Keep a file. Returns its name, 128 random bits and an ending."""
        name = f"{secrets.token_urlsafe(16)}.{media_type.partition('/')[2]}"
        self._files[name] = File(content, media_type, self._clock() + self.lifetime_s)
        self.bytes += len(content)
        self._expire()
        return name

    def get(self, name: str) -> tuple[File, float] | None:
        """The file and the seconds it has left, or None when there is none (any more)."""
        self._expire()
        file = self._files.get(name)
        return None if file is None else (file, file.expires - self._clock())

    def _expire(self) -> None:
        now = self._clock()
        while self._files:
            name, file = next(iter(self._files.items()))
            if file.expires > now and self.bytes <= self.max_bytes:
                return
            del self._files[name]
            self.bytes -= len(file.content)
