"""Protocol v2 with one client: one task takes its requests, another answers them in order.

What a client can make the server hold: `_MAX_WAITING` requests, and the part of one frame that the network has not
taken yet. When these are full its socket is left unread, and it is waited for.
"""

import asyncio
import logging
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from diffusion_art.errors import UserError
from diffusion_art.net import until_one_ends
from diffusion_art.shards.mixture import Shards
from diffusion_art.streaming.answer import describe, frames, refusal, samples_at
from diffusion_art.streaming.server.guest import note_answer, send_parts
from diffusion_art.streaming.server.settings import Limits
from diffusion_art.streaming.wire import (
    VERSION,
    Error,
    Hello,
    Message,
    Read,
    WireError,
    pack_message,
    unpack_message,
    unreadable_in,
)

_MAX_WAITING = 64  # requests of one client not yet begun; with more of them its socket is left unread
_PING_S = 10.0  # while samples are on their way: well within the time that a client waits for an answer

log = logging.getLogger(__name__)


Lookup: TypeAlias = tuple[Read, np.ndarray, Future[None] | None]  # the samples, and when they are there
Waiting: TypeAlias = asyncio.Queue[Lookup | Error]


async def speak_v2(connection: ServerConnection, shards: Shards, limits: Limits) -> None:
    """Answer a client until it leaves, or says something that is not the protocol and is sent away."""
    waiting: Waiting = asyncio.Queue(_MAX_WAITING)
    # Either may stand still for as long as the other is slow, so the end of one is the end of both.
    results = await until_one_ends(_listen(connection, shards, limits, waiting), _answer(connection, shards, waiting))
    for error in results:
        if isinstance(error, WireError):
            await _send(connection, Error(None, "bad_message", str(error)))
            await connection.close(1002, "not protocol v2")
        elif isinstance(error, Exception) and not isinstance(error, ConnectionClosed):
            log.error("an answer failed, its client is dropped", exc_info=error)
            await connection.close(1011, "internal error")


async def _listen(connection: ServerConnection, shards: Shards, limits: Limits, waiting: Waiting) -> None:
    """Take requests until the client leaves. WireError when it does not keep to the protocol."""
    async for text in connection:
        message = _understand(text)
        if isinstance(message, Hello):
            await _send(connection, replace(describe(shards), max_count=limits.max_request_samples))
        else:
            refused = refusal(shards, message, max_count=limits.max_request_samples)
            await waiting.put(refused or _look_up(shards, message))


async def _answer(connection: ServerConnection, shards: Shards, waiting: Waiting) -> None:
    """Answer requests in order, until cancelled or the client is gone."""
    while True:
        task = await waiting.get()
        began, unreadable = time.perf_counter(), 0
        if isinstance(task, Error):
            await _send(connection, task)
            note_answer(connection, samples=0, seconds=time.perf_counter() - began)
            continue
        read, numbers, coming = task
        if refused := await _unless_there(connection, read, coming):
            await _send(connection, refused)
            note_answer(connection, samples=0, seconds=time.perf_counter() - began)
            continue
        for frame in frames(shards, read, numbers):
            unreadable += unreadable_in(frame[0])
            await send_parts(connection, frame)
            await asyncio.sleep(0)  # a send that does not wait would keep other clients from their turn
        samples = len(numbers) - unreadable
        note_answer(connection, samples=samples, seconds=time.perf_counter() - began, unreadable=unreadable)


def _understand(text: str | bytes) -> Hello | Read:
    if not isinstance(text, str):
        raise WireError("a client sends JSON text, this message is binary")
    message = unpack_message(text)
    if isinstance(message, Hello) and message.version != VERSION:
        raise WireError(f"this server speaks version {VERSION} of the protocol, not {message.version}")
    if not isinstance(message, Hello | Read):
        raise WireError(f"a client does not say {text[:200]!r}")
    return message


def _look_up(shards: Shards, read: Read) -> Lookup:
    """The samples that `read` means, on their way from disk or a store while earlier requests are answered."""
    samples = samples_at(shards, read)
    return read, samples, shards.prefetch(read.split, samples, read.codec)


async def _unless_there(connection: ServerConnection, read: Read, coming: Future[None] | None) -> Error | None:
    """Wait for samples that come over a network while other clients have their turn; what to say if they do not.

    The client is pinged meanwhile, so that it does not take us for a server that hangs. Whether it answers is its own
    business: a trainer may be busy.
    """
    if coming is None:
        return None
    there = asyncio.wrap_future(coming)
    try:
        while not (await asyncio.wait([there], timeout=_PING_S))[0]:
            await connection.ping()
        there.result()
    except UserError as error:
        log.error("%s", error)
        return Error(read.id, "unreadable", str(error))
    finally:
        there.cancel()
    return None


async def _send(connection: ServerConnection, message: Message) -> None:
    await connection.send(pack_message(message))
