"""AUTOMATIC1111's API below `/sdapi/v1`, for the front ends that speak it: paint, watch, interrupt, see what there is.

`cfg_scale` is our `guidance_scale`. A size that the model does not paint is answered with its picture enlarged.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from diffusion_art.diffusion.noise import seeds_from
from diffusion_art.infotext import KEY as INFOTEXT
from diffusion_art.serving.api.errors import ApiError
from diffusion_art.serving.api.generations import unless_gone
from diffusion_art.serving.api.pictures import Size, as_base64
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
from diffusion_art.serving.api.sdapi_schema import Progress, Txt2Img, Txt2ImgAnswer
from diffusion_art.serving.api.sdapi_work import Work, Works
from diffusion_art.serving.engine.jobs import Job, Ticket
from diffusion_art.serving.orders import Output
from diffusion_art.serving.studio import Studio
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
        raise ApiError(400, f"At most {most} pictures at a time here; {told}.", code="too_many_pictures")
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
