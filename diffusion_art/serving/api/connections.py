"""Connections with an end to our patience: who sends or reads too slowly does not keep others waiting.

uvicorn gives every connection a task and then waits for ever: for a head that comes one byte a minute, for a body that
never ends, for a reader that never reads. Here each has its time, and when all places are taken the
connection that has kept silent longest makes room for a new one: it may be a slowloris, it is never somebody's answer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from diffusion_art.net import send_at_once
from diffusion_art.serving.settings import Limits

STREAM = "python -m diffusion_art.stream"

log = logging.getLogger(__name__)


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
