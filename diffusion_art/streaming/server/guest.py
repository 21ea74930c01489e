"""One connection at the server: its wait at the entrance, what is counted of it, and how its answers go out.

Large answers go from the page cache to the network without passing through a buffer of ours. asyncio joins what it is
given and copies what a socket does not take at once, and `websockets` copies a message twice before that. For a
megabyte of pictures that is more work than all the rest, so a frame goes out by one `writev` of its parts, and only
what the socket does not take is handed to asyncio.
"""

import contextlib
import os
import time
from asyncio import Transport
from collections.abc import Callable, Sequence
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.protocol import State
from websockets.server import ServerProtocol

from diffusion_art.streaming.server.metrics import Row
from diffusion_art.streaming.wire import Buffer

MAX_STRANGERS = 256  # connections of one process that are still in their opening handshake

_WHOLE_TEXT, _WHOLE_BINARY = 0x81, 0x82  # FIN and the opcode of a message (RFC 6455, 5.2)
_MAX_PARTS = min(1024, os.sysconf("SC_IOV_MAX")) if hasattr(os, "sysconf") else 16


class Entrance:
    """The connections that have not said what they want. Too many of them, and the oldest is shown out.

    A client of ours is through in milliseconds, so the oldest one is a port scanner or holds its socket open to
    keep others from theirs; `open_timeout_s` ends these too, and this bounds their number until then.
    """

    def __init__(self, most: int = MAX_STRANGERS) -> None:
        self._most = most
        self._waiting: dict[object, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, who: object, show_out: Callable[[], None]) -> None:
        """`who` has come in; `show_out` is what ends it."""
        if len(self._waiting) >= self._most:
            oldest = next(iter(self._waiting))
            self._waiting.pop(oldest)()
        self._waiting[who] = show_out

    def leave(self, who: object) -> None:
        """Forget `who`: it has been let in, or has left."""
        self._waiting.pop(who, None)


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


# ---------------------------------------------------------------------- around asyncio's buffers


def write_message(transport: Transport, parts: Sequence[Buffer], *, text: bool = False) -> int:
    """Write one whole message, unmasked as a server's are, binary or UTF-8 `text`; its bytes. Does not wait.

    `parts` must not change until they are sent: they are not copied where it can be helped.
    """
    size = sum(map(len, parts))
    message = [_header(size, _WHOLE_TEXT if text else _WHOLE_BINARY), *parts]
    sent = 0
    if len(message) <= _MAX_PARTS and _is_ours_to_write(transport):
        with contextlib.suppress(OSError):  # it takes nothing now, or is gone, as the transport will find out
            sent = os.writev(transport.get_extra_info("socket").fileno(), message)
    rest = _rest(message, sent)
    if rest:
        transport.write(b"".join(rest))
    return size


def _is_ours_to_write(transport: Transport) -> bool:
    """Whether bytes written to the socket now come after all those written before, and are not to be encrypted."""
    return (
        not transport.is_closing()
        and transport.get_write_buffer_size() == 0
        and transport.get_extra_info("sslcontext") is None
        and transport.get_extra_info("socket") is not None
    )


def _rest(parts: Sequence[Buffer], sent: int) -> list[Buffer]:
    """What is left of `parts` after their first `sent` bytes."""
    for number, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[number + 1 :]]
        sent -= len(part)
    return []


def _header(size: int, first: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 2**16:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")
