"""The server that paints: what it says when it answers, and its end, which loses nobody's picture."""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import uvicorn

from diffusion_art.errors import UserError
from diffusion_art.net import Tls, warn_of_plain_tokens
from diffusion_art.serving.api.app import create_app
from diffusion_art.serving.listening import AnnouncedServer, config_of
from diffusion_art.serving.studio import Studio

LEVELS = ("debug", "info", "warning", "error")  # of the log

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


@dataclass(frozen=True)
class Announcement:
    """What is said once the server answers at `url`; after it `then` is called."""

    studio: Studio
    tls: Tls | None
    then: Callable[[], None] | None = None

    def __call__(self, url: str) -> None:
        studio, settings = self.studio, self.studio.settings
        at = settings.public_url or url
        log.info("%s (%s px, %s) is served at %s", studio.model.id, studio.model.size, studio.model.checkpoint, at)
        age_s = time.time() - psutil.Process().create_time()
        log.info("a page at /, the API at /docs; ready after %.1f s; stop with Ctrl-C", age_s)
        warn_of_plain_tokens(settings.tokens, self.tls)
        if self.then is not None:
            self.then()


def check_log_level(level: str) -> None:
    """UserError for one that is not known."""
    if level not in LEVELS:
        raise UserError(f"log_level={level} is not one of {', '.join(LEVELS)}")


def check_drain(seconds: object) -> None:
    """UserError for what is no time to wait at the end: it would be found out only there."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        raise UserError(f"drain_s={seconds} is not a number of seconds: give one, 0 or more.")


@contextmanager
def logging_from(level: str) -> Iterator[None]:
    """Inside the block all is logged from `level` on. Prompts are quoted at debug only."""
    logger = logging.getLogger("diffusion_art")
    before = logger.level
    logger.setLevel(level.upper())
    try:
        yield
    finally:
        logger.setLevel(before)
