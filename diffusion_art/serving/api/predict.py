"""`POST /predict`: captions in, raw floats out, as EIR's `eirserve` answers in its text-to-image tutorial."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response

from diffusion_art.diffusion.noise import SEED_LIMIT
from diffusion_art.serving.api.errors import ApiError
from diffusion_art.serving.api.generations import ERRORS, unless_gone
from diffusion_art.serving.api.pictures import as_base64, as_floats
from diffusion_art.serving.api.schema import CaptionItem, ErrorAnswer, FloatPicture, Predictions
from diffusion_art.serving.engine.jobs import Ticket
from diffusion_art.serving.studio import Studio

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
        studio.check_prompt(item.caption, "caption")
    seeds = (secrets.randbelow(SEED_LIMIT) if item.seed is None else item.seed for item in items)
    jobs = [
        studio.job(item.caption, seed, studio.sampler_of(), size=studio.painted_size(item.size))
        for item, seed in zip(items, seeds, strict=True)
    ]
    tickets = studio.order(jobs, customer=request.scope.get("customer"))
    work = asyncio.gather(*(_floats(studio, ticket) for ticket in tickets))
    pictures: Any = await unless_gone(request, tickets, work)
    if pictures is None:
        return Response(status_code=499)
    answer = Predictions(result=pictures)
    return Response(answer.model_dump_json(), media_type="application/json")


async def _floats(studio: Studio, ticket: Ticket) -> FloatPicture:
    pixels = await studio.picture(ticket)
    return FloatPicture(image=await studio.off_the_loop(lambda: as_base64(as_floats(pixels))))
