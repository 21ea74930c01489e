"""AUTOMATIC1111's API below `/sdapi/v1`, for the front ends that speak it: paint, watch, interrupt, see what there is.

`cfg_scale` is our `guidance_scale`. A size that the model does not paint is answered with its picture enlarged.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from PIL import Image

from diffusion_art.infotext import KEY as INFOTEXT
from diffusion_art.infotext import SAMPLER_NAMES
from diffusion_art.serving.encode import as_base64
from diffusion_art.serving.errors import ApiError, not_here, shown
from diffusion_art.serving.generations import ERRORS, unless_gone
from diffusion_art.serving.job import Job, Ticket
from diffusion_art.serving.sdapi_schema import (
    ModelItem,
    PngInfo,
    PngInfoRequest,
    Progress,
    SamplerItem,
    SchedulerItem,
    SdError,
    Txt2Img,
    Txt2ImgAnswer,
    UpscalerItem,
)
from diffusion_art.serving.sdapi_work import Work, Works
from diffusion_art.serving.sizes import Size
from diffusion_art.serving.studio import Output, Studio, seeds_from

LOOKS = 3  # at the first picture, for /progress
_TAG = "AUTOMATIC1111's API"
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": SdError, "description": ERRORS.get(status, {}).get("description", text)}
    for status, text in {
        400: "",
        401: "",
        404: "There is no such sampler or model.",
        408: "",
        413: "",
        421: "",
        422: "The request is not well formed.",
        429: "",
        500: "",
        503: "",
    }.items()
}


def _among(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _ERRORS[status] for status in statuses}


_GUARDED = _among(401, 421)

router = APIRouter(prefix="/sdapi/v1", tags=[_TAG])


@router.post("/txt2img", response_model=Txt2ImgAnswer, responses=_ERRORS, summary="Paint a prompt")
async def txt2img(body: Txt2Img, request: Request) -> Response:
    studio, works = _studio(request), _works(request)
    jobs, output = _jobs_of(studio, body), _output_of(studio, body)
    work = Work(jobs, request.scope.get("customer"))
    with works.going(work):
        work.tickets = studio.order(jobs, customer=work.customer, on_preview=work.on_preview)
        painted = await unless_gone(request, work.tickets, _pictures(studio, work, output))
    if painted is None:
        return Response(status_code=499)
    texts = [studio.story(job, output.size)[INFOTEXT] for job in jobs]
    answer = Txt2ImgAnswer(
        images=[picture for picture in painted if picture is not None] if body.send_images else [],
        parameters=body.model_dump(exclude={"override_settings"}),
        info=json.dumps(_info(studio, jobs, output.size, texts, body)),
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
    studio.check_prompt(body.prompt, "prompt")
    studio.check_prompt(body.negative_prompt or "", "negative_prompt")
    _check_model(studio, (body.override_settings or {}).get("sd_model_checkpoint"))
    sampler = studio.sampler_of(sampler_named(body.sampler_name or body.sampler_index), body.steps)
    return [
        Job(
            prompt=body.prompt,
            seed=seed,
            sampler=sampler,
            guidance_scale=studio.guidance_scale_of(body.cfg_scale),
            negative_prompt=body.negative_prompt or "",
            **studio.guidance,
            previews=LOOKS if number == 0 else 0,
        )
        for number, seed in enumerate(seeds_from(body.seed, count))
    ]


def _output_of(studio: Studio, body: Txt2Img) -> Output:
    own = studio.run.model.image_size_px
    asked = None if body.width is body.height is None else f"{body.width or own}x{body.height or own}"
    return Output(studio.size_of(asked, body.batch_size * body.n_iter))


def sampler_named(name: str | None) -> str | None:
    """Our word for a sampler of theirs, also with a schedule's name behind it (`DPM++ 2M Karras`), which is ignored.

    Raises:
        ApiError: 404, as theirs, for one that there is not.
    """
    wanted = " ".join((name or "").lower().split())
    if wanted in ("", "automatic", "none"):
        return None
    for schedule in (" karras", " exponential", " polyexponential", " sgm uniform", " automatic"):
        wanted = wanted.removesuffix(schedule)
    for ours, theirs in SAMPLER_NAMES.items():
        if wanted in (ours, theirs.lower(), *_aliases(theirs)):
            return ours
    raise ApiError(
        404,
        f"Sampler {shown(name) or 'of that name'} not found; choose one of {', '.join(SAMPLER_NAMES.values())}.",
        code="sampler_not_found",
    )


def _aliases(name: str) -> list[str]:
    plain = name.lower().replace("++", "pp").replace(" ", "_")
    return [plain, f"k_{plain}"]


def _info(studio: Studio, jobs: list[Job], size: Size, texts: list[str], body: Txt2Img) -> dict[str, Any]:
    """What AUTOMATIC1111's `Processed` tells; fields that mean nothing here are left out."""
    first, seeds = jobs[0], [job.seed for job in jobs]
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
        "painted_size": studio.size,
        "sampler_name": SAMPLER_NAMES[first.sampler.name],
        "cfg_scale": first.guidance_scale,
        "steps": first.sampler.num_steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "sd_model_name": studio.model.id,
        "sd_model_hash": _hash(studio),
        "extra_generation_params": size.story(),
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "clip_skip": 1,
    }


# ---------------------------------------------------------------------- watching


@router.get("/progress", responses=_among(401, 421, 422), summary="How far the pictures of this API are")
async def progress(request: Request, skip_current_image: bool = False) -> Progress:
    """With a token: those asked for with it."""
    studio = _studio(request)
    found, work = _works(request).progress(request.scope.get("customer"))
    if work is not None and (look := work.look) is not None and not skip_current_image:
        output = Output(studio.size_of(None, 1))
        content = await studio.off_the_loop(lambda: studio.encoded(look, work.jobs[0], output, story=False))
        found.current_image = as_base64(content)
    return found


@router.post("/interrupt", responses=_GUARDED, summary="End the pictures of this API")
async def interrupt(request: Request) -> dict[str, Any]:
    """Their requests are answered with the pictures that are finished."""
    _works(request).interrupt(request.scope.get("customer"))
    return {}


# ---------------------------------------------------------------------- what there is


@router.get("/samplers", responses=_GUARDED, summary="The samplers by their names there")
async def samplers() -> list[SamplerItem]:
    return [SamplerItem(name=name, aliases=_aliases(name)) for name in SAMPLER_NAMES.values()]


@router.get("/schedulers", responses=_GUARDED, summary="One: the run's own times")
async def schedulers() -> list[SchedulerItem]:
    return [SchedulerItem()]


@router.get("/sd-models", responses=_GUARDED, summary="The model that is served")
async def sd_models(request: Request) -> list[ModelItem]:
    studio = _studio(request)
    name = studio.model.id
    return [ModelItem(title=name, model_name=name, hash=_hash(studio), filename=f"{name}.ckpt")]


@router.get("/upscalers", responses=_GUARDED, summary="None: sizes are enlarged as they need it")
async def upscalers() -> list[UpscalerItem]:
    return [UpscalerItem(name="None")]


@router.get("/latent-upscale-modes", responses=_GUARDED, include_in_schema=False)
@router.get("/sd-vae", responses=_GUARDED, include_in_schema=False)
@router.get("/sd-modules", responses=_GUARDED, include_in_schema=False)
@router.get("/loras", responses=_GUARDED, include_in_schema=False)
@router.get("/hypernetworks", responses=_GUARDED, include_in_schema=False)
@router.get("/prompt-styles", responses=_GUARDED, include_in_schema=False)
@router.get("/scripts-list", responses=_GUARDED, include_in_schema=False)
async def nothing() -> list[str]:
    """What front ends list at their start and there is none of."""
    return []


@router.get("/options", responses=_GUARDED, summary="The settings that front ends read")
async def options(request: Request) -> dict[str, Any]:
    studio = _studio(request)
    return {
        "sd_model_checkpoint": studio.model.id,
        "sd_checkpoint_hash": _hash(studio),
        "sd_vae": "None",
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
    }


@router.post(
    "/options",
    responses=_among(400, 401, 404, 408, 413, 421, 422),
    summary="Choose the model: there is one",
)
async def set_options(body: Annotated[dict[str, Any], Body()], request: Request) -> None:
    """404 for another model. Other settings are ignored."""
    _check_model(_studio(request), body.get("sd_model_checkpoint"))


@router.post("/refresh-checkpoints", responses=_GUARDED, include_in_schema=False)
@router.post("/skip", responses=_GUARDED, include_in_schema=False)
async def done() -> None:
    """Taken, and nothing to do."""


@router.post(
    "/png-info",
    responses=_among(400, 401, 408, 413, 421, 422),
    summary="What a picture's file says it was painted from",
)
async def png_info(body: PngInfoRequest) -> PngInfo:
    try:
        content = base64.b64decode(body.image.rpartition(",")[2])
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:  # its head is read, no pixel is decoded
            items = {str(key): value for key, value in picture.info.items() if isinstance(value, str)}
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ApiError(400, "This is no PNG in base64.", param="image", code="invalid_value") from None
    return PngInfo(info=items.pop(INFOTEXT, ""), items=items)


@router.post("/img2img", include_in_schema=False)
@router.post("/extra-single-image", include_in_schema=False)
@router.post("/extra-batch-images", include_in_schema=False)
@router.post("/interrogate", include_in_schema=False)
async def from_a_picture() -> None:
    """Parts of the API that start from a picture. The body is not read."""
    raise not_here("This model paints from captions only, so nothing can be made from a picture here.")


def _check_model(studio: Studio, name: Any) -> None:
    """ApiError 404 for a checkpoint that is not the one served, by its title or its hash."""
    if name is not None and name not in ("", _hash(studio)):
        studio.check_model(name if isinstance(name, str) else str(name))


def _hash(studio: Studio) -> str:
    return studio.model.checkpoint.rpartition("-")[2]


def _studio(request: Request) -> Studio:
    return request.app.state.studio


def _works(request: Request) -> Works:
    return request.app.state.works
