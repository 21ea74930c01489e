"""`POST /predict`: captions in, raw floats out, as EIR's `eirserve` answers in its text-to-image tutorial."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from jaxtyping import UInt8

from diffusion_art.diffusion.samplers import seeds_from
from diffusion_art.serving.api.errors import ApiError, invalid
from diffusion_art.serving.api.generations import ERRORS, as_base64, unless_gone
from diffusion_art.serving.api.schema import CaptionItem, ErrorAnswer, FloatPicture, Info, Predictions, Shape
from diffusion_art.serving.engine.jobs import Job, Ticket
from diffusion_art.serving.studio import Studio
from diffusion_art.sizes import Size

router = APIRouter()

_EXAMPLE = [{"caption": "Rembrandt / The Scholar's Study / Dutch Golden Age / interior / 1651"}]


@router.post(
    "/predict",
    response_model=Predictions,
    responses={**ERRORS, 422: {"model": ErrorAnswer, "description": "The body is no list of captions."}},
    summary="Paint captions, as EIR's server does",
    tags=["EIR"],
)
async def predict(
    items: Annotated[list[CaptionItem], Body(min_length=1, examples=[_EXAMPLE])], request: Request
) -> Response:
    """One picture for each caption, painted with the run's own sampler, steps and guidance."""
    studio: Studio = request.app.state.studio
    if len(items) > (most := studio.settings.limits.max_captions):
        raise ApiError(422, f"At most {most} captions at a time here, not {len(items)}.", code="too_many_pictures")
    for item in items:
        studio.orders.check_prompt(item.caption, "caption")
    jobs = [_job(studio, item) for item in items]
    tickets = studio.order(jobs, customer=request.scope.get("customer"))
    work = asyncio.gather(*(_floats(studio, ticket) for ticket in tickets))
    pictures: Any = await unless_gone(request, tickets, work)
    if pictures is None:
        return Response(status_code=499)
    answer = Predictions(result=pictures)
    return Response(answer.model_dump_json(), media_type="application/json")


@router.get("/info", responses={status: ERRORS[status] for status in (401, 421)}, summary="The shapes", tags=["EIR"])
async def info(request: Request) -> Info:
    """What the floats of /predict are, where no `size` is asked for; as EIR's server says it."""
    side_px = request.app.state.studio.run.model.image_size_px
    picture = {"image": Shape(shape=[3, side_px, side_px])}
    return Info(inputs=picture, outputs=picture)


def _job(studio: Studio, item: CaptionItem) -> Job:
    orders, (seed,) = studio.orders, seeds_from(item.seed, 1)
    return orders.job(item.caption, seed, orders.sampler_of(), size=_painted_size(studio, item.size))


def _painted_size(studio: Studio, asked: str | None) -> Size:
    """A size that the model paints, its square where none is asked for. ApiError 400 for another."""
    size = studio.orders.size_of(asked, 1)
    if size.enlarged:
        paints = ", ".join(studio.model.painted_sizes)
        raise invalid(f"This model paints {paints}, and floats are not enlarged.", param="size", code="invalid_size")
    return size.painted


async def _floats(studio: Studio, ticket: Ticket) -> FloatPicture:
    pixels = await studio.picture(ticket)
    return FloatPicture(image=await studio.off_the_loop(lambda: as_base64(as_floats(pixels))))


def as_floats(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Little-endian float32 in [0, 1], channels first: what EIR's clients read."""
    return np.ascontiguousarray(pixels.astype("<f4").transpose(2, 0, 1) / np.float32(255)).tobytes()
