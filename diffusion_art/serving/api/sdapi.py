"""AUTOMATIC1111's API below `/sdapi/v1`, for the front ends that speak it: paint, watch, interrupt, see what there is.

`cfg_scale` is our `guidance_scale`. A size that the model does not paint is answered with its picture enlarged.
`Works` are those on their way.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from diffusion_art.diffusion.samplers import seeds_from
from diffusion_art.serving.api.errors import ApiError, invalid
from diffusion_art.serving.api.generations import as_base64, unless_gone
from diffusion_art.serving.api.sdapi_about import (
    GUARDED_ERRORS,
    PREFIX,
    SD_ERRORS,
    TAG,
    among,
    check_checkpoint,
    hash_of,
    sampler_named,
)
from diffusion_art.serving.api.sdapi_schema import Progress, State, Txt2Img, Txt2ImgAnswer
from diffusion_art.serving.engine.jobs import Job, Ticket
from diffusion_art.serving.orders import Output, Size
from diffusion_art.serving.studio import Studio
from diffusion_art.sheets import INFOTEXT
from diffusion_art.sizes import named

_HUGE = 10**5  # more than any side, and no number too large for a float
LOOKS = 3  # at the first picture, for /progress
router = APIRouter(prefix=PREFIX, tags=[TAG])


@router.post("/txt2img", response_model=Txt2ImgAnswer, responses=SD_ERRORS, summary="Paint a prompt")
async def txt2img(body: Txt2Img, request: Request) -> Response:
    studio, works = _studio(request), _works(request)
    jobs, output = _jobs_of(studio, body), _output_of(studio, body)
    work = Work(jobs, request.scope.get("customer"))
    with works.going(work):
        work.tickets = studio.order(jobs, customer=work.customer, on_preview=work.on_preview)
        painted = await unless_gone(request, work.tickets, _pictures(studio, work, output))
    if painted is None:
        return Response(status_code=499)
    finished = [(job, picture) for job, picture in zip(jobs, painted, strict=True) if picture is not None]
    told = _info(studio, jobs[0], [job for job, _ in finished], output.size)
    answer = Txt2ImgAnswer(
        images=[picture for _, picture in finished] if body.send_images else [],
        parameters=body.model_dump(exclude={"override_settings"}),
        info=json.dumps({**told, "batch_size": body.batch_size}),
    )
    return Response(answer.model_dump_json(), media_type="application/json")


async def _pictures(studio: Studio, work: Work, output: Output) -> list[str | None]:
    """In base64, in order; None for one that was interrupted."""
    pairs = zip(work.jobs, work.tickets, strict=True)
    return await asyncio.gather(*(_picture(studio, work, job, ticket, output) for job, ticket in pairs))


async def _picture(studio: Studio, work: Work, job: Job, ticket: Ticket, output: Output) -> str | None:
    try:
        pixels = await studio.picture(ticket)
    except ApiError:
        if work.interrupted and ticket.result.cancelled():
            return None
        raise
    return as_base64(await studio.off_the_loop(studio.encoded, pixels, job, output))


def _jobs_of(studio: Studio, body: Txt2Img) -> list[Job]:
    """One job for each picture. ApiError for what this server does not paint."""
    count, most = body.batch_size * body.n_iter, studio.settings.limits.max_n
    if count > most:
        told = f"batch_size x n_iter is {count}" if count < 10**6 else "batch_size x n_iter is more"
        raise invalid(f"At most {most} pictures at a time here; {told}.", code="too_many_pictures")
    studio.orders.check_prompt(body.prompt, "prompt")
    studio.orders.check_prompt(body.negative_prompt, "negative_prompt")
    check_checkpoint(studio, (body.override_settings or {}).get("sd_model_checkpoint"))
    sampler = studio.orders.sampler_of(sampler_named(body.sampler_name or body.sampler_index), body.steps)
    asked = {"negative_prompt": body.negative_prompt, "guidance_scale": body.cfg_scale}
    painted = _output_of(studio, body).size.painted
    return [
        studio.orders.job(body.prompt, seed, sampler, **asked, previews=0 if number else LOOKS, size=painted)
        for number, seed in enumerate(seeds_from(body.seed, count))
    ]


def _output_of(studio: Studio, body: Txt2Img) -> Output:
    own, scale = studio.run.model.image_size_px, body.hr_scale if body.enable_hr else 1
    sides = [round(min(side or own, _HUGE) * scale) for side in (body.width, body.height)]
    asked = None if body.width is body.height is None and scale == 1 else f"{sides[0]}x{sides[1]}"
    return Output(studio.orders.size_of(asked, body.batch_size * body.n_iter))


def _info(studio: Studio, first: Job, jobs: list[Job], size: Size) -> dict[str, Any]:
    """What AUTOMATIC1111's `Processed` tells of the pictures of `jobs`; fields that mean nothing here are left out."""
    seeds = [job.seed for job in jobs]
    return {
        "prompt": first.prompt,
        "all_prompts": [job.prompt for job in jobs],
        "negative_prompt": first.negative_prompt,
        "all_negative_prompts": [job.negative_prompt for job in jobs],
        "seed": first.seed,
        "all_seeds": seeds,
        "subseed": first.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": size.width,
        "height": size.height,
        "painted_size": named(size.painted),
        "sampler_name": first.sampler.title,
        "cfg_scale": first.guidance_scale,
        "steps": first.sampler.num_steps,
        "restore_faces": False,
        "sd_model_name": studio.model.id,
        "sd_model_hash": hash_of(studio),
        "extra_generation_params": size.story(),
        "index_of_first_image": 0,
        "infotexts": [studio.story(job, size)[INFOTEXT] for job in jobs],
        "styles": [],
        "clip_skip": 1,
    }


# ---------------------------------------------------------------------- watching


@router.get("/progress", responses=among(401, 421, 422), summary="How far the pictures of this API are")
async def progress(request: Request, skip_current_image: bool = False) -> Progress:
    """With a token: those asked for with it."""
    studio = _studio(request)
    found, work = _works(request).progress(request.scope.get("customer"))
    if work is not None and (look := work.look) is not None and not skip_current_image:
        own = work.jobs[0].size
        output = Output(studio.orders.size_of(None if own is None else named(own), 1))
        content = await studio.off_the_loop(lambda: studio.encoded(look, work.jobs[0], output, story=False))
        found.current_image = as_base64(content)
    return found


@router.post("/interrupt", responses=GUARDED_ERRORS, summary="End the pictures of this API")
async def interrupt(request: Request) -> dict[str, Any]:
    """Their requests are answered with the pictures that are finished."""
    _works(request).interrupt(request.scope.get("customer"))
    return {}


def _studio(request: Request) -> Studio:
    return request.app.state.studio


def _works(request: Request) -> Works:
    return request.app.state.works


# ---------------------------------------------------------------------- what is on its way


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
