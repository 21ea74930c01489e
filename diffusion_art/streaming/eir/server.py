"""Protocol v1 with one client: EIR's streaming protocol 1.0, so that `eirtrain` trains from our server.

    client                                               server
    {"type": "handshake", "version": "1.0"}           -> {"type": "handshake", "version": "1.0"}
    {"type": "getInfo"}                               -> {"type": "info", "payload": {"inputs": ..., "outputs": ...}}
    {"type": "getData", "payload": {"batch_size": n}} -> {"type": "data", "payload": [n samples]}, fewer at the end of
                                                         the stream, or ["terminate"] when it is over
    {"type": "setValidationIds",
     "payload": {"validation_ids": [...]}}            -> {"type": "validationIdsConfirmation", "payload": ...}
    {"type": "reset"}                                 -> {"type": "resetConfirmation", ...}, then {"type": "reset", ...}
    {"type": "status"}, {"type": "heartbeat"}         -> the same type
    anything else                                     -> {"type": "error", "payload": {"message": ...}}

Replies come in the order of the requests. Which samples a client gets is decided in `shared_stream.py`. A picture is
sent twice, as input and as target, and is encoded to base64 once; the stored JPEG is passed through as it is.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import orjson
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from diffusion_art.net import until_one_ends
from diffusion_art.shards.mixture import Shards
from diffusion_art.streaming.answer import views
from diffusion_art.streaming.eir.shared_stream import SPLIT, EirClient, EirPass
from diffusion_art.streaming.eir.wire import (
    INFO,
    TERMINATE,
    VERSION,
    Refusal,
    batch_size,
    encode_data,
    encode_sample,
    is_whole,
    parse,
    validation_ids,
)
from diffusion_art.streaming.server.guest import note_answer, send_parts

MAX_REQUEST_BYTES = 2**22  # setValidationIds of about 200,000 ids
MAX_REPLY_BYTES = 2**23  # of data; EIR's client refuses a message of 10 MB

_MAX_WAITING = 16  # requests of one client not yet answered; with more of them its socket is left unread
Waiting: TypeAlias = asyncio.Queue[dict[str, Any] | str]

log = logging.getLogger(__name__)


async def speak_v1(connection: ServerConnection, shards: Shards, state: EirPass) -> None:
    """Answer a client until it leaves, or greets with another version and is sent away."""
    connection.protocol.max_message_size = max(MAX_REQUEST_BYTES, connection.protocol.max_message_size or 0)
    waiting: Waiting = asyncio.Queue(_MAX_WAITING)
    talk = _Talk(connection, shards, state)
    try:
        # Either may stand still for as long as the other is slow, so the end of one is the end of both.
        results = await until_one_ends(talk.listen(waiting), talk.answer(waiting))
    finally:
        talk.leave()
    for error in results:
        if isinstance(error, Exception) and not isinstance(error, ConnectionClosed):
            log.error("an answer failed, its client is dropped", exc_info=error)
            await connection.close(1011, "internal error")


class _Talk:
    """One conversation."""

    def __init__(self, connection: ServerConnection, shards: Shards, state: EirPass) -> None:
        self._connection, self._shards, self._state = connection, shards, state
        self._client: EirClient | None = None
        self._sent = 0  # data answers handed to the socket: a request that comes now has seen them

    def leave(self) -> None:
        """Give back what the client can not have seen."""
        if self._client is not None:
            self._state.leave(self._client)

    async def listen(self, waiting: Waiting) -> None:
        """Take requests until the client leaves."""
        async for text in self._connection:
            if self._client is not None:
                self._client.seen = max(self._client.seen, self._sent)
            await waiting.put(parse(text))

    async def answer(self, waiting: Waiting) -> None:
        """Answer requests in order, until cancelled, the client is gone or sent away."""
        while True:
            request = await waiting.get()
            try:
                if isinstance(request, str):
                    raise Refusal(request)
                if request.get("type") == "handshake":
                    if not await self._greet(request):
                        return
                elif self._client is None:
                    raise Refusal(f'the first message is {{"type": "handshake", "version": "{VERSION}"}}')
                else:
                    await self._serve(self._client, request)
            except Refusal as refusal:
                await self._send({"type": "error", "payload": {"message": str(refusal)}})
                note_answer(self._connection, samples=0, seconds=0.0)
            await asyncio.sleep(0)  # a send that does not wait would keep other clients from their turn

    async def _greet(self, request: dict[str, Any]) -> bool:
        if request.get("version") != VERSION:
            found = repr(request["version"])[:50] if "version" in request else "none"
            message = f"this server speaks version {VERSION} of the protocol, the handshake says {found}"
            await self._send({"type": "error", "payload": {"message": message}})
            await self._connection.close(1000, "another version")
            return False
        if self._client is None:
            self._client = self._state.join()
        await self._send({"type": "handshake", "version": VERSION})
        return True

    async def _serve(self, client: EirClient, request: dict[str, Any]) -> None:
        kind, payload = request.get("type"), request.get("payload")
        if kind == "getData":
            await self._give(client, batch_size(payload))
        elif kind == "heartbeat":
            await self._send({"type": "heartbeat"})
        elif kind == "getInfo":
            await self._send({"type": "info", "payload": INFO})
        elif kind == "status":
            await self._send({"type": "status", "payload": self._state.status()})
        elif kind == "reset":
            self._state.reset(client)
            await self._send({"type": "resetConfirmation", "payload": {"message": "Reset successful"}})
            await self._send({"type": "reset", "payload": {"message": "Reset command received"}})
        elif kind == "setValidationIds":
            ids = validation_ids(payload)
            self._state.exclude(ids)
            message = f"Received {len(ids)} validation IDs"
            await self._send({"type": "validationIdsConfirmation", "payload": {"message": message}})
        else:
            raise Refusal(f"there is no message of type {str(kind)[:50]!r}")

    async def _give(self, client: EirClient, wanted: int) -> None:
        """Exactly `wanted` samples, unless the stream ends or the answer grows too large for a client to take."""
        began = time.perf_counter()
        answer, size, samples = client.answers + 1, 0, list[tuple[bytes, ...]]()
        wanted, barren = min(wanted, self._state.max_batch_size), 0
        while len(samples) < wanted and size < MAX_REPLY_BYTES and barren <= self._state.samples:
            positions = self._state.take(client, wanted - len(samples), answer=answer)
            if not len(positions):
                break
            barren += len(positions)
            numbers = self._state.numbers(positions)
            coming = self._shards.prefetch(SPLIT, numbers)
            if coming is not None:  # over a network: other clients have their turn meanwhile
                await asyncio.wrap_future(coming)
            for used, sample in self._samples(positions, numbers):
                length, barren = sum(map(len, sample)), 0
                if samples and size + length > MAX_REPLY_BYTES:
                    self._state.give_back(client, positions[used:], answer=answer)
                    size = MAX_REPLY_BYTES
                    break
                samples.append(sample)
                size += length
            await asyncio.sleep(0)
        if not samples:
            client.told_of_the_end()
            await self._send({"type": "data", "payload": [TERMINATE]})
            return
        client.answers = answer
        await send_parts(self._connection, encode_data(samples), text=True)
        self._sent = answer
        note_answer(self._connection, samples=len(samples), seconds=time.perf_counter() - began)

    def _samples(self, positions: np.ndarray, numbers: np.ndarray) -> Iterator[tuple[int, tuple[bytes, ...]]]:
        """The samples at `positions` that a client may have, as JSON, and which position each of them was."""
        keys, captions, images = views(self._shards, SPLIT, numbers, told=self._state.draws(positions))
        barred = self._state.excluded(keys)
        for i, (key, caption, image) in enumerate(zip(keys.tolist(), captions, images, strict=True)):
            if barred[i] or image is None:
                continue
            if not is_whole(image):
                log.warning("sample %016x of split %s is no whole JPEG; it is left out", key, SPLIT)
                continue
            yield i, encode_sample(key, caption, image)

    async def _send(self, message: dict[str, Any]) -> None:
        await self._connection.send(orjson.dumps(message), text=True)
