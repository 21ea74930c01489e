"""The stream server of one event loop: a thin, stateless loop around the shards and the wire.

A request is answered from the mapped shards in frames of about a megabyte. Between two frames every other client has
its turn. A client that does not read stops only its own answers: one frame, at most, waits for it in our memory.

In protocol v2 one task takes a client's requests, another answers them in order. What a client can make the server
hold: `_MAX_WAITING` requests, and the part of one frame that the network has not taken yet. When these are full its
socket is left unread, and it is waited for.

At its front door it is decided which connections are let in, and what is answered to those that only ask over HTTP:

/ws         the stream, by WebSocket
/health     "ok" for everyone who asks
/metrics    Prometheus text, for those who know the token where there is one
"""

import asyncio
import logging
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TypeAlias, cast

import numpy as np
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as websocket_server
from websockets.exceptions import ConnectionClosed, NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from diffusion_art.errors import UserError
from diffusion_art.net import BACKLOG, authorised, is_local_page, listen, plain_path, tune, until_one_ends
from diffusion_art.shards.mixture import Shards
from diffusion_art.streaming.answer import describe, frames, refusal, samples_at
from diffusion_art.streaming.eir.server import speak_v1
from diffusion_art.streaming.eir.shared_stream import EirPass
from diffusion_art.streaming.server.guest import Entrance, Guest, note_answer, send_parts
from diffusion_art.streaming.server.metrics import Exposition, Row, Table
from diffusion_art.streaming.server.settings import Limits, Settings
from diffusion_art.streaming.wire import (
    PATH,
    SUBPROTOCOL,
    VERSION,
    Error,
    Hello,
    Message,
    Read,
    StreamInfo,
    WireError,
    pack_message,
    unpack_message,
    unreadable_in,
)

log = logging.getLogger(__name__)


async def open_server(
    shards: Shards,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    settings: Settings | None = None,
    listener: socket.socket | None = None,
    table: Table | None = None,
    counts: Row | None = None,
) -> Server:
    """A running server, on `listener` when one is given; close it, or use it as an async context manager.

    It counts in the row `counts` of `table`. UserError as from `listen`, or for a certificate that cannot be used.
    """
    settings = settings or Settings()
    table = table or Table(1)
    counts = counts or table.rows[0]
    context = settings.tls.context() if settings.tls else None
    state = EirPass(
        shards,
        seed=settings.eir_seed,
        epochs=settings.eir_epochs,
        path=settings.eir_state,
        max_batch_size=settings.limits.max_request_samples,
    )
    reception, entrance = Reception(settings, describe(shards), table, counts), Entrance()

    async def converse(connection: ServerConnection) -> None:
        try:
            tune(connection.transport)
            if connection.subprotocol == SUBPROTOCOL:
                await speak_v2(connection, shards, settings.limits)
            else:
                await speak_v1(connection, shards, state)
        except ConnectionClosed:
            pass
        except UserError as error:  # the ledger of EIR's stream, which is opened when its first client comes
            log.error("%s", error)
            await connection.close(1011, "internal error")
        except Exception:  # a bug of ours: websockets would tell only the logger that we keep quiet
            log.exception("a conversation failed, its client is dropped")
            await connection.close(1011, "internal error")

    try:
        server = await websocket_server(
            converse,
            sock=listener or listen(host, port, token=settings.token),
            ssl=context,
            backlog=BACKLOG,
            process_request=reception.hear,
            process_response=reception.settle,
            select_subprotocol=reception.choose,
            server_header=None,
            create_connection=cast("type[Guest]", partial(Guest, counts=counts, entrance=entrance)),
            compression=None,  # JPEG does not shrink, and an inflater is a way to be flooded
            max_size=settings.limits.max_message_bytes,
            write_limit=(1, 0),  # the next frame waits until the network has all of the one before
            open_timeout=settings.limits.open_timeout_s,
            ping_interval=None,  # see net.tune
            close_timeout=0.5,
            logger=_quiet_logger(),
        )
    except BaseException:
        state.close()
        raise
    server.handlers_waiter.add_done_callback(lambda _: state.close())
    return server


def _quiet_logger() -> logging.Logger:
    """Failed handshakes of strangers and port scanners are no tracebacks in our log."""
    logger = logging.getLogger("websockets.server.stream")
    logger.setLevel(logging.CRITICAL)
    return logger


# ---------------------------------------------------------------------- protocol v2 with one client


_MAX_WAITING = 64  # requests of one client not yet begun; with more of them its socket is left unread
_PING_S = 10.0  # while samples are on their way: well within the time that a client waits for an answer

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


# ---------------------------------------------------------------------- the front door


HEALTH = ("/health", "/healthz", "/livez", "/readyz", "/ping")  # it takes clients as long as it lives


class Reception:
    """Lets clients in, or tells them why not, by the three hooks of websockets' opening handshake."""

    def __init__(self, settings: Settings, info: StreamInfo, table: Table, counts: Row) -> None:
        self._token, self._limits = settings.token, settings.limits
        self._table, self._counts = table, counts
        self._exposition = Exposition(table, info)

    def hear(self, connection: ServerConnection, request: Request) -> Response | None:
        """`process_request`: the answer to a client that does not want the stream, or may not have it."""
        path = plain_path(request.path.partition("?")[0])
        if path in HEALTH:
            return connection.respond(HTTPStatus.OK, "ok\n")
        if not authorised(request.headers.get_all("Authorization"), self._token):
            given = "Authorization" in request.headers
            text = "This is not its token" if given else "This stream needs its token"
            text += ", as the header 'Authorization: Bearer TOKEN'.\n"
            response = self._refuse(connection, "token", HTTPStatus.UNAUTHORIZED, text)
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if self._token is None and not all(map(is_local_page, request.headers.get_all("Origin"))):
            text = "Pages of other sites may not read a stream without a token; start it with token=SECRET.\n"
            return self._refuse(connection, "origin", HTTPStatus.FORBIDDEN, text)
        if path == "/metrics":
            self._counts.show()
            text, content_type = self._exposition.render(", ".join(request.headers.get_all("Accept")))
            response = connection.respond(HTTPStatus.OK, text)
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = content_type
            return response
        if path != PATH:
            return self._refuse(connection, "path", HTTPStatus.NOT_FOUND, f"The stream is at {PATH}.\n")
        return None

    def choose(self, _: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        """`select_subprotocol`: v2 for clients that offer it, v1 for those that offer none."""
        if SUBPROTOCOL in offered:
            return Subprotocol(SUBPROTOCOL)
        if offered:
            raise NegotiationError(f"this server speaks {SUBPROTOCOL}, or EIR's protocol with those who offer none")
        return None

    def settle(self, connection: ServerConnection, _: Request, response: Response) -> Response | None:
        """`process_response`: let the client in, if there is room."""
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            if response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UPGRADE_REQUIRED):
                self._counts.add("connections_refused", "protocol")
            return None
        if self._table.family_total("connections_open") >= self._limits.max_connections:
            text = f"This server has its {self._limits.max_connections} clients.\n"
            full = self._refuse(connection, "full", HTTPStatus.SERVICE_UNAVAILABLE, text)
            full.headers["Retry-After"] = "1"
            return full
        assert isinstance(connection, Guest)
        connection.let_in("v2" if connection.subprotocol == SUBPROTOCOL else "v1")
        return None

    def _refuse(self, connection: ServerConnection, reason: str, status: HTTPStatus, text: str) -> Response:
        self._counts.add("connections_refused", reason)
        return connection.respond(status, text)
