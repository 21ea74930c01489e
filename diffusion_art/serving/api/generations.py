"""`POST /v1/images/generations`: pictures for a prompt, at once or as a stream of looks at them."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from diffusion_art.serving.api.errors import ApiError, internal, not_here
from diffusion_art.serving.api.schema import (
    CompletedImage,
    ErrorAnswer,
    ImageRequest,
    ImagesAnswer,
    PartialImage,
    Picture,
)
from diffusion_art.serving.engine.jobs import Job, Ticket
from diffusion_art.serving.orders import Output
from diffusion_art.serving.studio import Studio, post
from diffusion_art.sizes import named

KEEP_ALIVE_S = 10.0  # an SSE comment goes out when nothing else has for so long, so that proxies do not give up
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "The request is not well formed, or asks for more than there is.",
        401: "A token is needed, or this one is not known.",
        404: "There is no such model.",
        408: "The body took too long to arrive.",
        413: "The body is too large.",
        415: "The body is packed (Content-Encoding).",
        421: "The Host header names another server.",
        429: "The queue is full, or the token has had its share; Retry-After says when to come back.",
        500: "A step of the painting failed.",
        503: "The server is ending or out of memory; Retry-After says when to come back.",
    }.items()
}

router = APIRouter()
Result = TypeVar("Result")


@router.post(
    "/v1/images/generations",
    response_model=ImagesAnswer,
    responses={
        **ERRORS,
        200: {
            "content": {
                "text/event-stream": {"schema": {"type": "string"}},
            },
            "description": "The pictures; with `stream`, events: partial_image and completed, or an error.",
        },
    },
    summary="Paint a prompt",
    tags=["OpenAI's images API"],
)
async def generate(body: ImageRequest, request: Request) -> Response:
    studio: Studio = request.app.state.studio
    jobs, output = studio.orders.jobs_of(body), studio.orders.output_of(body)
    customer = request.scope.get("customer")
    if body.stream:
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(index: int, number: int | None, pixels: np.ndarray | None) -> None:
            post(loop, events.put_nowait, (index, number, pixels))

        tickets = studio.order(jobs, customer=customer, on_preview=tell)
        for index, ticket in enumerate(tickets):
            ticket.result.add_done_callback(lambda _, index=index: tell(index, None, None))
        return EventStream(stream_of(studio, output, jobs, tickets, events), tickets)
    tickets = studio.order(jobs, customer=customer)
    base_url = (studio.settings.public_url or str(request.base_url)) if _by_url(body) else None
    pictures = await unless_gone(
        request,
        tickets,
        asyncio.gather(
            *(_picture(studio, output, job, ticket, base_url) for job, ticket in zip(jobs, tickets, strict=True))
        ),
    )
    if pictures is None:
        return Response(status_code=499)
    answer = ImagesAnswer(created=int(time.time()), data=pictures, **_about(studio, output))
    return Response(answer.model_dump_json(), media_type="application/json")


def _by_url(request: ImageRequest) -> bool:
    """As asked; where nothing is said, as OpenAI's: the dall-e models with a url, the others in base64."""
    if request.response_format is not None or request.stream:
        return request.response_format == "url"
    return (request.model or "").startswith("dall-e")


async def _picture(studio: Studio, output: Output, job: Job, ticket: Ticket, base_url: str | None) -> Picture:
    """In base64; with a `base_url`, as an address there."""
    pixels = await studio.picture(ticket)
    content = await studio.off_the_loop(studio.encoded, pixels, job, output)
    if base_url is not None:
        name = studio.files.put(content, f"image/{output.format}")
        return Picture(url=f"{base_url.rstrip('/')}/files/{name}", seed=job.seed)
    return Picture(b64_json=await studio.off_the_loop(as_base64, content), seed=job.seed)


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _about(studio: Studio, output: Output) -> dict[str, Any]:
    return {"size": str(output.size), "painted_size": named(output.size.painted), "output_format": output.format}


@router.post("/v1/images/edits", include_in_schema=False)
@router.post("/v1/images/variations", include_in_schema=False)
async def change(request: Request) -> Response:
    """Parts of OpenAI's API that start from a picture. The body is not read."""
    raise not_here("This model paints from captions only, so pictures cannot be edited or varied here.")


async def unless_gone(request: Request, tickets: Sequence[Ticket], work: Awaitable[Result]) -> Result | None:
    """What `work` gives, or None when the client goes before; then, or on an error, the tickets are cancelled."""
    working, going = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, going}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for ticket in tickets:
            ticket.cancel()
        for task in (working, going):
            task.cancel()
        await asyncio.gather(working, going, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# ---------------------------------------------------------------------- the stream

Event = tuple[int, int | None, np.ndarray | None]  # which picture; which look at it and its pixels, or None: done


async def stream_of(
    studio: Studio, output: Output, jobs: Sequence[Job], tickets: Sequence[Ticket], events: asyncio.Queue
) -> AsyncIterator[bytes]:
    """The server-sent events of a request, until all its pictures are done or one of them cannot be."""
    created, left = int(time.time()), len(jobs)
    shared: dict[str, Any] = {"created_at": created, **_about(studio, output)}
    while left:
        try:
            index, number, pixels = await asyncio.wait_for(events.get(), KEEP_ALIVE_S)
        except TimeoutError:
            yield b": still painting\n\n"
            continue
        job, ticket = jobs[index], tickets[index]
        place: dict[str, Any] = {"image_index": index, "seed": job.seed, **shared}
        try:
            final = pixels is None
            pixels = studio.outcome(ticket.result) if pixels is None else pixels
            encoded = await studio.off_the_loop(partial(studio.encoded, story=final), pixels, job, output)
            content = await studio.off_the_loop(as_base64, encoded)
        except Exception as error:
            told = error if isinstance(error, ApiError) else internal(error)
            yield event_of("error", {"type": "error", **told.body()})
            return
        if final:
            left -= 1
            yield event_of("image_generation.completed", CompletedImage(b64_json=content, **place))
        else:
            look = PartialImage(
                b64_json=content,
                partial_image_index=number or 0,
                progress=round(ticket.calls_done / ticket.calls, 4),
                **place,
            )
            yield event_of("image_generation.partial_image", look)


def event_of(name: str, data: BaseModel | dict[str, Any]) -> bytes:
    """One server-sent event."""
    text = data.model_dump_json() if isinstance(data, BaseModel) else json.dumps(data)
    return f"event: {name}\ndata: {text}\n\n".encode()


class EventStream(StreamingResponse):
    """A stream that cancels its tickets when it ends, however it ends: also when its client goes before it began."""

    def __init__(self, events: AsyncIterator[bytes], tickets: Sequence[Ticket]) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )
        self._tickets = tickets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for ticket in self._tickets:
                ticket.cancel()
