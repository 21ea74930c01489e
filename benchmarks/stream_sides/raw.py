"""A WebSocket client that only counts: no masks, no copies, nothing decoded, so that the server is what is measured."""

from __future__ import annotations

import base64
import os
import socket
import struct
from urllib.parse import urlsplit

TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9
_BUFFER = 2**20


class RawClient:
    """A connection to the server at `url`, upgraded with or without a subprotocol.

    Messages of the server are read into one buffer and only their first `head` bytes are given out.
    ConnectionError when the server refuses or leaves.
    """

    def __init__(self, url: str, subprotocol: str | None, *, head: int = 32) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(_BUFFER))
        self._first, self._last = 0, 0  # of what lies in the buffer
        self._head = head
        key = base64.b64encode(os.urandom(16)).decode()
        offered = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        self._socket.sendall(
            f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += bytes(self._take(1))
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(answer.splitlines()[0].decode())

    def send(self, text: str) -> None:
        """Send a text message, masked with zeros: the protocol asks for a mask, the server must undo it."""
        data = text.encode()
        if len(data) < 126:
            header = struct.pack("!BB4x", 0x80 | TEXT, 0x80 | len(data))
        else:
            header = struct.pack("!BBH4x", 0x80 | TEXT, 0x80 | 126, len(data))
        self._socket.sendall(header + data)

    def receive(self) -> tuple[int, bytes, int]:
        """The next message: its kind (opcode), its first bytes and its length."""
        kind, head, size, final = 0, b"", 0, False
        while not final:
            first, second = self._take(2)
            length = second & 0x7F
            if length >= 126:
                length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
            if first & 0xF == PING:
                self._skip(length)
                continue
            final, kind = bool(first & 0x80), kind or first & 0xF
            wanted = min(length, self._head - len(head))
            head += bytes(self._take(wanted))
            self._skip(length - wanted)
            size += length
        if kind == CLOSE:
            raise ConnectionError(f"the server closes: {head[2:]!r}")
        return kind, head, size

    def close(self) -> None:
        self._socket.close()

    def _take(self, count: int) -> memoryview:
        """The next `count` bytes, far fewer than the buffer holds."""
        if self._last - self._first < count:
            left = bytes(self._buffer[self._first : self._last])
            self._buffer[: len(left)] = left
            self._first, self._last = 0, len(left)
            while self._last < count:
                self._fill()
        taken = self._buffer[self._first : self._first + count]
        self._first += count
        return taken

    def _skip(self, count: int) -> None:
        there = min(count, self._last - self._first)
        self._first += there
        count -= there
        while count > 0:  # the buffer is empty: let what is skipped overwrite itself
            received = self._socket.recv_into(self._buffer, min(count, _BUFFER))
            if not received:
                raise ConnectionError("the server has gone")
            count -= received

    def _fill(self) -> None:
        received = self._socket.recv_into(self._buffer[self._last :])
        if not received:
            raise ConnectionError("the server has gone")
        self._last += received
