"""Protocol v2 with one client: one task takes its requests, another answers them in order."""

import asyncio
import logging

import numpy as np
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from diffusion_art.streaming.answer import describe, frames, refusal, samples_at
from diffusion_art.streaming.shards import ShardSet
from diffusion_art.streaming.wire import (
    VERSION,
    Error,
    Hello,
    Message,
    Read,
    WireError,
    pack_message,
    unpack_message,
)

_MAX_WAITING = 64  # requests of one client not yet begun; with more of them its socket is left unread

log = logging.getLogger(__name__)


async def speak_v2(connection: ServerConnection, shards: ShardSet) -> None:
    """Answer a client until it leaves, or says something that is not the protocol and is sent away."""
    waiting: asyncio.Queue[tuple[Read, np.ndarray] | Error] = asyncio.Queue(_MAX_WAITING)
    answering = asyncio.create_task(_answer(connection, shards, waiting))
    # We may stand waiting for room in the queue: the task that makes it must not end without us.
    answering.add_done_callback(lambda _: connection.transport.abort())
    try:
        async for text in connection:
            message = _understand(text)
            if isinstance(message, Hello):
                await _send(connection, describe(shards))
            else:
                await waiting.put(refusal(shards, message) or _look_up(shards, message))
    except WireError as error:
        await _send(connection, Error(None, "bad_message", str(error)))
        await connection.close(1002, "not protocol v2")
    finally:
        answering.cancel()


def _understand(text: str | bytes) -> Hello | Read:
    if not isinstance(text, str):
        raise WireError("a client sends JSON text, this message is binary")
    message = unpack_message(text)
    if isinstance(message, Hello) and message.version != VERSION:
        raise WireError(f"this server speaks version {VERSION} of the protocol, not {message.version}")
    if not isinstance(message, Hello | Read):
        raise WireError(f"a client does not say {text[:200]!r}")
    return message


def _look_up(shards: ShardSet, read: Read) -> tuple[Read, np.ndarray]:
    """The samples that `read` means, on their way from disk while earlier requests are answered."""
    samples = samples_at(shards, read)
    shards.prefetch(read.split, samples)
    return read, samples


async def _answer(
    connection: ServerConnection, shards: ShardSet, waiting: asyncio.Queue[tuple[Read, np.ndarray] | Error]
) -> None:
    try:
        while True:
            task = await waiting.get()
            if isinstance(task, Error):
                await _send(connection, task)
                continue
            for frame in frames(shards, *task):
                await connection.send(frame)
                await asyncio.sleep(0)  # a send that does not wait would keep other clients from their turn
    except ConnectionClosed:
        pass
    except Exception:
        log.exception("an answer failed, its client is dropped")


async def _send(connection: ServerConnection, message: Message) -> None:
    await connection.send(pack_message(message))
