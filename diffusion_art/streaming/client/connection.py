"""A WebSocket client without a thread of its own: a message is read when it is wanted, a large one in one copy.

The protocol is that of `websockets`, whose sans-I/O half makes the handshake, masks what we say, answers pings and
the farewell. Only an unfragmented binary message, which is nearly every byte that arrives, goes past it: from the
socket straight into the buffer that the caller gets. What was not read yet waits in the kernel, and when that is
full at the server, so nothing here grows.
"""

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Mapping

import numpy as np
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

_WHOLE_BINARY = 0x80 | Opcode.BINARY  # first byte of a message in one piece: FIN, no extension bits
_SEND_WITHIN_S = 30
_CLOSE_WITHIN_S = 0.2

_quiet = logging.getLogger("websockets.client.stream")  # what went wrong is in our errors
_quiet.setLevel(logging.CRITICAL)


class Connection:
    """An open connection to `url`. OSError (TimeoutError, ConnectionError, ssl.SSLError) for what may happen to one.

    `tls` is needed for a `wss://` address only. A message over `max_bytes` ends the connection. Waiting is counted
    from the last byte that came, so a slow network may take its time over a large message.

    Raises:
        websockets.exceptions.InvalidURI: `url` is no such address.
        websockets.exceptions.InvalidHandshake: the server answers something else; InvalidStatus says what.
    """

    def __init__(
        self,
        url: str,
        *,
        subprotocol: str | None,
        headers: Mapping[str, str],
        max_bytes: int,
        open_within_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        uri = parse_uri(url)
        self._max_bytes = max_bytes
        offer = None if subprotocol is None else [Subprotocol(subprotocol)]
        self._protocol = ClientProtocol(uri, subprotocols=offer, max_size=max_bytes, logger=_quiet)
        deadline = time.monotonic() + open_within_s
        self._socket = socket.create_connection((uri.host, uri.port), timeout=open_within_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if uri.secure:
                context = tls or ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=uri.host)
            self._shake_hands(headers, deadline)
        except BaseException:
            self._socket.close()
            raise

    @property
    def subprotocol(self) -> str | None:
        """What the server chose to speak."""
        return self._protocol.subprotocol

    def send(self, *texts: str) -> None:
        """Send text messages, all at once; TimeoutError when the server does not take them."""
        if self._protocol.state is not State.OPEN:
            raise ConnectionError("the connection is closed")
        self._socket.settimeout(_SEND_WITHIN_S)
        for text in texts:
            self._protocol.send_text(text.encode())
        self._flush()

    def recv(self, timeout_s: float) -> str | memoryview:
        """The next message; TimeoutError when nothing of it comes for so long, and then there is no going on."""
        self._socket.settimeout(timeout_s)
        while True:
            head = self._exactly(2)
            size = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
            head = head + self._exactly(size)
            length = int.from_bytes(head[2:], "big") if size else head[1] & 0x7F
            if length > self._max_bytes:
                raise ConnectionError(f"a message of {length:,} bytes is over the limit of {self._max_bytes:,}")
            if head[0] == _WHOLE_BINARY and not head[1] & 0x80:
                return self._fill(length)
            text = self._other(head + self._exactly(length))
            if text is not None:
                return text

    def close(self) -> None:
        """Say goodbye, without waiting for an answer, and let go."""
        with contextlib.suppress(OSError):
            if self._protocol.state is State.OPEN:
                self._socket.settimeout(_CLOSE_WITHIN_S)
                self._protocol.send_close(1000)
                self._flush()
        self._socket.close()

    def _shake_hands(self, headers: Mapping[str, str], deadline: float) -> None:
        request = self._protocol.connect()
        for name, value in headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._flush()
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._socket.recv(1)  # byte by byte, so as to take nothing of what comes after
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
        self._protocol.events_received()
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc

    def _other(self, frame: bytes) -> str | None:
        """What a frame that is no whole binary message says: a text, or nothing for us."""
        self._protocol.receive_data(frame)
        self._flush()
        if self._protocol.parser_exc is not None:
            raise ConnectionError(f"the server does not speak WebSocket: {self._protocol.parser_exc}")
        for event in self._protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode is Opcode.CLOSE:
                raise ConnectionError(f"the server hung up: {self._protocol.close_rcvd}")
            if event.opcode is Opcode.CONT or not event.fin:
                raise ConnectionError("the server sent a message in pieces")
            if event.opcode is Opcode.TEXT:
                try:
                    return str(event.data, "utf-8")
                except UnicodeDecodeError as error:
                    raise ConnectionError(f"the server sent a text that is not UTF-8: {error}") from None
        return None

    def _flush(self) -> None:
        if data := b"".join(self._protocol.data_to_send()):
            self._socket.sendall(data)

    def _exactly(self, length: int) -> bytes:
        return bytes(self._fill(length))

    def _fill(self, length: int) -> memoryview:
        """The next `length` bytes, in memory of their own that is not cleared first."""
        view = np.empty(length, np.uint8).data
        rest = view
        while rest:
            read = self._socket.recv_into(rest)
            if read == 0:
                raise ConnectionError("the server is gone")
            rest = rest[read:]
        return view
