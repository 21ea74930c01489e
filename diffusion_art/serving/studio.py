"""From a request to pictures: what this model can do, its orders to the engine, its answers.

The only part of the HTTP face that knows the run and the engine. Pictures are encoded on threads of their own, so
that neither the event loop nor the engine waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch

from diffusion_art import __version__
from diffusion_art.diffusion.noise import SEED_LIMIT
from diffusion_art.diffusion.samplers import SAMPLERS, Sampler, by_name
from diffusion_art.errors import UserError
from diffusion_art.infotext import KEY as INFOTEXT
from diffusion_art.runs import Run
from diffusion_art.serving.about import better, trained
from diffusion_art.serving.api.errors import ApiError, internal, of_mistake, out_of_service, shown, too_many
from diffusion_art.serving.api.metrics import Metrics
from diffusion_art.serving.api.pictures import Size, encode, size_of
from diffusion_art.serving.api.schema import Bounds, Defaults, ImageRequest, Model
from diffusion_art.serving.engine.engine import Engine
from diffusion_art.serving.engine.jobs import Busy, Job, Stopping, Ticket
from diffusion_art.serving.files import Files
from diffusion_art.serving.settings import Rates, Settings
from diffusion_art.sizes import Size as Painted
from diffusion_art.sizes import named

log = logging.getLogger(__name__)

_ENDING = "The server is ending; try again when it is back."


@dataclass(frozen=True)
class Output:
    """How a picture is answered: its size, its format, and the quality of JPEG and WebP."""

    size: Size
    format: str = "png"
    quality: int | None = None


def no_sampler(name: str) -> ApiError:
    message = f"There is no sampler {shown(name)}; choose one of {', '.join(SAMPLERS)}."
    return ApiError(400, message, param="sampler", code="invalid_value")


def seeds_from(first: int | None, count: int) -> list[int]:
    """`count` seeds that count up from the first; from any where that is None or negative."""
    first = secrets.randbelow(2**31) if first is None or first < 0 else first
    return [(first + number) % SEED_LIMIT for number in range(count)]


class Studio:
    """A run, its engine, and what requests need beside them. `close` ends it all."""

    def __init__(self, run: Run, engine: Engine, settings: Settings | None = None) -> None:
        self.run, self.engine = run, engine
        self.settings = settings or Settings()
        limits = self.settings.limits
        self.rates = Rates(limits.rate_per_minute)
        self.files = Files(lifetime_s=limits.file_lifetime_s, max_bytes=limits.max_file_bytes)
        self.size = f"{run.model.image_size_px}x{run.model.image_size_px}"
        self._sampler, self._guidance_scale = run.sampler(), run.guidance_scale()
        self.guidance = run.guidance()
        self.draining = False
        self.metrics = Metrics()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="encode")
        self.model = self._describe()
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

    # ------------------------------------------------------------------ requests to jobs

    def jobs_of(self, request: ImageRequest) -> list[Job]:
        """One job for each picture, seeds counting up.

        Raises:
            ApiError: 400 for what this server does not paint, 404 for another model.
        """
        limits = self.settings.limits
        self.check_model(request.model)
        count = request.n or 1
        if count > limits.max_n:
            raise ApiError(
                400,
                f"At most {limits.max_n} pictures at a time here, not {shown(count) or 'that many'}.",
                param="n",
                code="too_many_pictures",
            )
        self.check_prompt(request.prompt, "prompt")
        self.check_prompt(request.negative_prompt or "", "negative_prompt")
        if not request.prompt.strip():
            raise ApiError(400, "The prompt is empty: say what to paint.", param="prompt", code="empty_prompt")
        if request.stream and request.response_format == "url":
            raise ApiError(
                400,
                "A stream carries pictures as b64_json; drop response_format or stream.",
                param="response_format",
                code="invalid_value",
            )
        sampler = self.sampler_of(request.sampler, request.num_inference_steps, request.times)
        asked = {"negative_prompt": request.negative_prompt, "guidance_scale": request.guidance_scale}
        guidance, looks = self.guidance_of(request), (request.partial_images or 0) if request.stream else 0
        painted = self.size_of(request.size, count).painted
        return [
            self.job(request.prompt, seed, sampler, **asked, guidance=guidance, previews=looks, size=painted)
            for seed in seeds_from(request.seed, count)
        ]

    def job(
        self,
        prompt: str,
        seed: int,
        sampler: Sampler,
        *,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        guidance: dict[str, Any] | None = None,
        previews: int = 0,
        size: Painted | None = None,
    ) -> Job:
        """One picture; what is not given is the run's own."""
        scale = self._guidance_scale if guidance_scale is None else float(guidance_scale)
        tempered = self.guidance if guidance is None else guidance
        return Job(prompt, seed, sampler, scale, negative_prompt or "", **tempered, previews=previews, size=size)

    def output_of(self, request: ImageRequest) -> Output:
        """How the pictures of a request are answered. ApiError 400 for a size that is not given here."""
        size = self.size_of(request.size, request.n or 1)
        return Output(size, request.output_format or "png", request.output_compression)

    def size_of(self, asked: str | None, pictures: int) -> Size:
        """The size of so many pictures. ApiError 400 for one that is not given here."""
        model = self.run.model
        asked_of = {"painted_px": model.image_size_px, "others": model.sizes}
        return size_of(asked, **asked_of, pictures=pictures, limits=self.settings.limits)

    def painted_size(self, asked: str | None) -> Painted:
        """A size that the model paints, its square where none is asked for. ApiError 400 for another."""
        size = self.size_of(asked, 1)
        if size.enlarged:
            raise ApiError(
                400,
                f"This model paints {', '.join(self.model.painted_sizes)}, and floats are not enlarged.",
                param="size",
                code="invalid_size",
            )
        return size.painted

    def answers_with_url(self, request: ImageRequest) -> bool:
        """As asked; where nothing is said, as OpenAI's: the dall-e models with a url, the others in base64."""
        if request.response_format is not None or request.stream:
            return request.response_format == "url"
        return (request.model or "").startswith("dall-e")

    def sampler_of(
        self, name: str | None = None, num_steps: int | None = None, times: Sequence[float] | None = None
    ) -> Sampler:
        """The run's own sampler, or another one with the run's number of steps, or its own number, or grid of times."""
        self._check_steps(num_steps, "num_inference_steps")
        own = self._sampler if num_steps is None else self._sampler.in_steps(num_steps)
        if name is not None and name not in SAMPLERS:
            raise no_sampler(name)
        if name is not None and name != own.name:
            own = by_name(name, num_steps=own.num_steps, spacing=own.spacing)  # its grid was fitted to the other
        if times is None:
            return own
        steps = len(times) - 1
        self._check_steps(steps, "times")
        if num_steps not in (None, steps):
            raise ApiError(
                400,
                f"These times make {steps} steps, and num_inference_steps={num_steps}: drop one of the two.",
                param="times",
                code="invalid_value",
            )
        try:
            return replace(own, times=times)
        except UserError as error:
            raise of_mistake(error, param="times") from None

    def _check_steps(self, num_steps: int | None, param: str) -> None:
        most = self.settings.limits.max_steps
        if num_steps is not None and num_steps > most:
            raise ApiError(
                400,
                f"At most {most} steps here, not {shown(num_steps) or 'that many'}.",
                param=param,
                code="too_many_steps",
            )

    def guidance_of(self, request: ImageRequest) -> dict[str, Any]:
        """How guidance is tempered: as in the run's own sample grids, but for what the request says."""
        if request.guidance_threshold and not self.run.model.codec.bounded:
            raise ApiError(
                400,
                "This model's latents have no range to fit; use guidance_rescale instead.",
                param="guidance_threshold",
                code="invalid_value",
            )
        try:
            return self.run.guidance(
                interval=request.guidance_interval,
                rescale=request.guidance_rescale,
                threshold=request.guidance_threshold,
            )
        except UserError as error:  # the other two are numbers, and the schema has their range
            raise of_mistake(error, param="guidance_interval") from None

    def check_model(self, name: str | None) -> None:
        """ApiError 404 for a model that is not served here."""
        if not name or name == self.model.id or any(fnmatchcase(name, alias) for alias in self.settings.aliases):
            return
        named = f" {shown(name)}" if shown(name) else " of that name"
        raise ApiError(
            404, f"There is no model{named}; this is '{self.model.id}'.", param="model", code="model_not_found"
        )

    def check_prompt(self, prompt: str, param: str) -> None:
        """ApiError 400 for a prompt that is longer than is read here."""
        most = self.settings.limits.max_prompt_chars
        if len(prompt) > most:
            raise ApiError(
                400,
                f"The {param.replace('_', ' ')} has {len(prompt):,} characters; {most:,} are the most.",
                param=param,
                code="prompt_too_long",
            )

    # ------------------------------------------------------------------ jobs to pictures

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
            raise ApiError(
                400,
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

    def _describe(self) -> Model:
        limits, sampler, interval = self.settings.limits, self._sampler, self.guidance["interval"]
        run = self.run.name if self.run.checkpoint.parent.name == "checkpoints" else "NAME/RUN"
        return Model(
            id=self.settings.name or self.run.name,
            created=int(self.run.checkpoint.stat().st_mtime),
            size=self.size,
            painted_sizes=[named(size) for size in self.run.model.sizes] or [self.size],
            checkpoint=self.run.checkpoint_id,
            step=self.run.step,
            trained=trained(self.run.config, self.run.step),
            better=better(self.run.config, self.run.step, run=f"logs/{run}"),
            samplers=list(SAMPLERS),
            defaults=Defaults(
                num_inference_steps=sampler.num_steps,
                times=None if sampler.times is None else list(sampler.times),
                guidance_scale=self._guidance_scale,
                guidance_interval=None if interval is None else list(interval),
                guidance_rescale=self.guidance["rescale"],
                guidance_threshold=self.guidance["threshold"],
                sampler=sampler.name,
            ),
            limits=Bounds(
                n=min(limits.max_n, self.engine.max_jobs),
                num_inference_steps=limits.max_steps,
                prompt_characters=limits.max_prompt_chars,
                sizes=limits.sizes,
                side_px=limits.max_size_px,
            ),
        )


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
