"""A server from its first moment to its last: an address, uvicorn on it, and an end that loses nobody's picture."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from diffusion_art.errors import UserError
from diffusion_art.net import Tls
from diffusion_art.serving.api.app import create_app
from diffusion_art.serving.api.connections import patient
from diffusion_art.serving.studio import Studio

log = logging.getLogger(__name__)

_LAST_ANSWERS_S = 10  # to encode and send what was painted when the engine ended


class DrainingServer(uvicorn.Server):
    """On SIGTERM or Ctrl-C: takes no more pictures (503), finishes those it has, then goes. At once on a second one."""

    def __init__(
        self, config: uvicorn.Config, studio: Studio, *, drain_s: float, ready: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(config)
        self.studio = studio
        self.drain_s = drain_s
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._ready is not None and sockets:
            self._ready(url_of(sockets[0], secure=self.config.is_ssl))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called between two instructions of the main thread, so it only sets things going."""
        if self.studio.draining:
            self.force_exit = self.should_exit = True
            return
        self.drain()

    def drain(self) -> None:
        """Begin to end. Returns at once; may be called from any thread."""
        self.studio.draining = True
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        log.info("finishing what is on its way, for %g s at most; once more to stop at once", self.drain_s)
        self.studio.engine.stop(drain_s=self.drain_s)
        self.should_exit = True


def make_server(
    studio: Studio,
    *,
    drain_s: float = 30.0,
    tls: Tls | None = None,
    ready: Callable[[str], None] | None = None,
) -> DrainingServer:
    """A server of `studio` that has yet to run. `ready` is told its address once it answers there.

    Raises:
        UserError: a certificate or key that cannot be used.
    """
    limits, context = studio.settings.limits, tls.context() if tls else None
    config = uvicorn.Config(
        create_app(studio),
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
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return DrainingServer(config, studio, drain_s=drain_s, ready=ready)


def serve(server: DrainingServer, listener: socket.socket) -> None:
    """Run until a signal ends it. Returns when the last answer is out."""
    try:
        server.run(sockets=[listener])
    finally:
        server.studio.close()


def listen_at(host: str, port: int) -> socket.socket:
    """A socket of that address, which nobody else has; port 0 is any free one.

    Raises:
        UserError: the address is taken, not allowed, or not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise UserError(f"host={host} is no address of this machine ({error}); try host=127.0.0.1") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(f"nothing can be served at {host}, port {port} ({error}); choose another port=...") from None
    return listener


def url_of(listener: socket.socket, *, secure: bool = False) -> str:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"http{'s' if secure else ''}://{name}:{port}"
