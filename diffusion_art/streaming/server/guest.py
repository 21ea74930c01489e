"""One connection at the server, and what is counted of it."""

import time
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.protocol import State
from websockets.server import ServerProtocol

from diffusion_art.streaming.frame import Buffer
from diffusion_art.streaming.server.limits import Entrance
from diffusion_art.streaming.server.metrics import Row
from diffusion_art.streaming.server.outgoing import write_message


class Guest(ServerConnection):
    """A connection that counts what it sends, and whose end is noticed however it comes."""

    def __init__(
        self, protocol: ServerProtocol, server: Server, *, counts: Row, entrance: Entrance, **options: Any
    ) -> None:
        super().__init__(protocol, server, **options)
        self.counts = counts
        self.speaks: str | None = None  # the protocol's label, once let in
        self._entrance = entrance

    def connection_made(self, transport: Any) -> None:
        self._entrance.enter(self, transport.abort)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._entrance.leave(self)
        if self.speaks is not None:
            self.counts.add("connections_open", self.speaks, -1)
        super().connection_lost(exc)

    def let_in(self, speaks: str) -> None:
        """It speaks a protocol of ours, and there is room."""
        self._entrance.leave(self)
        self.speaks = speaks
        self.counts.add("connections", speaks)
        self.counts.add("connections_open", speaks)

    async def send(self, message: Any, *, text: bool | None = None) -> None:
        """ServerConnection.send, its bytes and its time counted."""
        began = time.perf_counter()
        await super().send(message, text=text)
        self.counts.add("send_seconds", amount=time.perf_counter() - began)
        size = len(message) if not isinstance(message, str) or message.isascii() else len(message.encode())
        self.counts.add("sent_bytes", self.speaks or "", size)

    async def send_parts(self, parts: Sequence[Buffer], *, text: bool = False) -> None:
        """Send what joining `parts` gives as one message, without joining them; counted as `send` does."""
        if self.state is not State.OPEN:
            await self.send(b"".join(parts))  # raises what it should
            return
        began = time.perf_counter()
        size = write_message(self.transport, parts, text=text)
        try:
            await self.drain()
        except OSError as error:
            self.transport.abort()
            await self.wait_closed()
            raise self.protocol.close_exc from error
        self.counts.add("send_seconds", amount=time.perf_counter() - began)
        self.counts.add("sent_bytes", self.speaks or "", size)


async def send_parts(connection: ServerConnection, parts: Sequence[Buffer], *, text: bool = False) -> None:
    """Guest.send_parts, of a connection that may be none."""
    if isinstance(connection, Guest):
        await connection.send_parts(parts, text=text)
    else:
        await connection.send(b"".join(parts), text=text)


def note_answer(connection: ServerConnection, *, samples: int, seconds: float, unreadable: int = 0) -> None:
    """A request of `connection` was answered with so many samples; none: with an error."""
    if not isinstance(connection, Guest) or connection.speaks is None:
        return
    counts, speaks = connection.counts, connection.speaks
    counts.add("requests", speaks)
    counts.add("samples", speaks, samples)
    counts.observe_request(seconds)
    if unreadable:
        counts.add("unreadable_samples", amount=unreadable)
    if samples + unreadable == 0:
        counts.add("requests_refused", speaks)
