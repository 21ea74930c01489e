"""An address, uvicorn on it, and word of when it answers there: what every HTTP server of ours begins with.

uvicorn gives every connection a task and then waits for ever: for a head that comes one byte a minute, for a body that
never ends, for a reader that never reads. Here each has its time, and when all places are taken the
connection that has kept silent longest makes room for a new one: it may be a slowloris, it is never somebody's answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from diffusion_art.errors import UserError
from diffusion_art.net import BACKLOG, Tls, send_at_once
from diffusion_art.serving.settings import Limits
from diffusion_art.stop_signals import AGAIN_S

log = logging.getLogger(__name__)

STREAM = "python -m diffusion_art.stream"
_LAST_ANSWERS_S = 10  # to send what is on its way when the server ends


class AnnouncedServer(uvicorn.Server):
    """Tells `ready` its address once it answers there."""

    def __init__(self, config: uvicorn.Config, *, ready: Callable[[str], None] | None = None) -> None:
        super().__init__(config)
        self._ready = ready
        self._told_at = -math.inf  # by the signal that began the end, monotonic seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None and sockets:
            self._ready(url_of(sockets[0], secure=self.config.is_ssl))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends after what is on its way, at once on a signal that comes more than AGAIN_S later. uvicorn's own would
        raise the signal again.

        Called between two instructions of the main thread, so it only sets things going.
        """
        now = time.monotonic()
        if not self.ending:
            self._told_at = now
            self.end()
        elif now - self._told_at > AGAIN_S:
            self.force_exit = self.should_exit = True

    @property
    def ending(self) -> bool:
        """Whether the end has begun."""
        return self.should_exit

    def end(self) -> None:
        """Begin to end. Returns at once."""
        self.should_exit = True


def config_of(app: ASGIApp, limits: Limits, *, tls: Tls | None = None) -> uvicorn.Config:
    """uvicorn's settings for an application of ours.

    Raises:
        UserError: a certificate or key that cannot be used.
    """
    context = tls.context() if tls else None
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return uvicorn.Config(
        app,
        http=patient(limits),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=max(1, int(limits.keep_alive_s)),
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        h11_max_incomplete_event_size=16_384,
        ssl_context_factory=None if context is None else lambda *_: context,
    )


def listen_at(host: str, port: int | str) -> socket.socket:
    """A socket of that address, which nobody else has from now on: clients that come before there is a server wait.
    Port 0 is any free one.

    Raises:
        UserError: the address is taken, not allowed, or not this machine's.
    """
    if not isinstance(port, int):
        raise UserError(f"port={port} is not a number: give one from 1 to 65535, or 0 for any free one.")
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise UserError(f"host={host} is no address of this machine ({error}); try host=127.0.0.1") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)  # until one listens there, another process could be bound to the port too
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(f"nothing can be served at {host}, port {port} ({error}); choose another port=...") from None
    return listener


def url_of(listener: socket.socket, *, secure: bool = False) -> str:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"http{'s' if secure else ''}://{name}:{port}"


# ---------------------------------------------------------------------- the protocol


class PatientProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn's, on `limits`."""

    limits = Limits()
    _silent: asyncio.TimerHandle | None = None  # runs while the client owes us a request
    _silent_since = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.access_log = False  # `Gate` writes one, which names routes and no more

    _unread: asyncio.TimerHandle | None = None  # runs while it does not read what we send

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        send_at_once(transport)  # else an answer's body waits for word of its head
        self._await_request(self.limits.header_timeout_s)
        if len(self.connections) > self.limits.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_came()
        self._was_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.busy:
            self._request_came()

    def on_response_complete(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._await_request(self.limits.keep_alive_s + self.limits.header_timeout_s)
        super().on_response_complete()
        if self.busy:  # with a request that came before this answer was out
            self._request_came()

    def _unsupported_upgrade_warning(self) -> None:
        """In place of uvicorn's advice on what to install. A client that asks for another protocol gets HTTP/1.1,
        as the standard has it.
        """
        if self._get_upgrade() == b"websocket":
            log.info("a WebSocket client came, and here is HTTP alone; pictures to train on are streamed by %s", STREAM)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.limits.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._was_read()
        super().resume_writing()

    @property
    def busy(self) -> bool:
        """Whether a request of this connection is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def silent_since(self) -> float:
        """Since when this connection owes us a request, on the loop's clock; inf where it does not."""
        return float("inf") if self._silent is None else self._silent_since

    def _await_request(self, patience_s: float) -> None:
        """Also what is left of a request that was refused before its end counts as silence."""
        self._request_came()
        self._silent_since = self.loop.time()
        self._silent = self.loop.call_later(patience_s, self._end)

    def _request_came(self) -> None:
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None

    def _was_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _end(self) -> None:
        self._request_came()
        self.transport.abort()

    def _make_room(self) -> None:
        """End the connection that has kept silent longest, or, where all are busy, this one."""
        others = (cast(PatientProtocol, each) for each in self.connections if each is not self)
        silent = min(others, key=lambda each: each.silent_since, default=self)
        (silent if silent.silent_since < float("inf") else self)._end()


def patient(limits: Limits) -> type[PatientProtocol]:
    """The protocol class with these limits, as uvicorn wants it."""
    attributes: dict[str, Any] = {"limits": limits}
    return type("LimitedProtocol", (PatientProtocol,), attributes)
