"""The server that paints, and its end, which loses nobody's picture."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

import uvicorn

from diffusion_art.net import Tls
from diffusion_art.serving.api.app import create_app
from diffusion_art.serving.listening import AnnouncedServer, config_of
from diffusion_art.serving.studio import Studio

log = logging.getLogger(__name__)


class DrainingServer(AnnouncedServer):
    """On SIGTERM or Ctrl-C: takes no more pictures (503), finishes those it has, then goes. At once on a later one."""

    def __init__(
        self, config: uvicorn.Config, studio: Studio, *, drain_s: float, ready: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(config, ready=ready)
        self.studio = studio
        self.drain_s = drain_s

    @property
    def ending(self) -> bool:
        return self.studio.draining

    def end(self) -> None:
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
    config = config_of(create_app(studio), studio.settings.limits, tls=tls)
    return DrainingServer(config, studio, drain_s=drain_s, ready=ready)


def serve(server: DrainingServer, listener: socket.socket) -> None:
    """Run until a signal ends it. Returns when the last answer is out."""
    try:
        server.run(sockets=[listener])
    finally:
        server.studio.close()
