"""An address, uvicorn on it, and word of when it answers there: what every HTTP server of ours begins with."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from diffusion_art.errors import UserError
from diffusion_art.net import BACKLOG, Tls
from diffusion_art.serving.api.gate import patient
from diffusion_art.serving.settings import Limits
from diffusion_art.stop_signals import AGAIN_S

log = logging.getLogger(__name__)

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
