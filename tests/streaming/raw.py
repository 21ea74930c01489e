"""WebSocket by hand, so that tests can break every rule of it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CONTINUATION, TEXT, BINARY, CLOSE, PING = 0x0, 0x1, 0x2, 0x8, 0x9
GOODBYE = struct.pack("!H", 1000)


def upgrade(url: str, subprotocol: str | None) -> bytes:
    """The request that opens a WebSocket at `url`."""
    address = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    offered = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n"
    ).encode()


def message(
    opcode: int, payload: bytes, *, fin: bool = True, reserved: int = 0, masked: bool = True, length: int | None = None
) -> bytes:
    """One frame, masked as clients do; `length` is what its header says, None for the truth."""
    length = len(payload) if length is None else length
    first = bytes([0x80 * fin | reserved << 4 | opcode])
    flag = 0x80 if masked else 0
    if length < 126:
        header = bytes([flag | length])
    elif length < 2**16:
        header = struct.pack("!BH", flag | 126, length)
    else:
        header = struct.pack("!BQ", flag | 127, length)
    return first + header + bytes(4) * masked + payload  # a mask of zeros changes nothing


@dataclass
class Answers:
    """All that a server said on one connection: the HTTP status, its messages, and how it closed."""

    status: int | None = None
    messages: list[bytes] = field(default_factory=list)
    close_code: int | None = None


def exchange(url: str, opening: bytes, data: bytes, *, quiet_s: float = 20, within_s: float = 20) -> Answers:
    """Open with `opening`, send `data` once the server has answered it, and hear it out. TimeoutError if it hangs.

    A server that says nothing for `quiet_s` is told that nothing more will come: it may be in the middle of a frame.
    """
    address = urlsplit(url)
    received = bytearray()
    with (
        suppress(ConnectionResetError, BrokenPipeError),  # it left before it had read everything
        socket.create_connection((address.hostname, address.port), timeout=within_s) as connection,
    ):
        connection.sendall(opening)
        connection.settimeout(quiet_s)
        try:
            while b"\r\n\r\n" not in received and (part := connection.recv(2**16)):
                received += part
            connection.sendall(data)
            _take_all(connection, received)
        except TimeoutError:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(within_s)
            _take_all(connection, received)
    return _understood(bytes(received))


def _take_all(connection: socket.socket, received: bytearray) -> None:
    while part := connection.recv(2**16):
        received += part


def _understood(data: bytes) -> Answers:
    answers = Answers()
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return answers
    answers.status = int(head.split()[1])
    if answers.status != 101:
        answers.messages.append(rest)
        return answers
    while len(rest) >= 2:
        opcode, length, start = rest[0] & 0xF, rest[1] & 0x7F, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(rest[2:start], "big")
        payload, rest = rest[start : start + length], rest[start + length :]
        if opcode == CLOSE:
            answers.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
        elif opcode in (TEXT, BINARY):
            answers.messages.append(payload)
    return answers


@contextmanager
def hosting(speech: Callable[[], bytes]) -> Iterator[str]:
    """The address of a server that opens a WebSocket for whoever comes, says `speech()` and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_host, args=(listener, speech))
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _host(listener: socket.socket, speech: Callable[[], bytes]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            connection.settimeout(20)
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += connection.recv(2**16)
            connection.sendall(_accepted(request.decode()) + speech())
            connection.settimeout(0.005)
            with suppress(TimeoutError):  # a client that says nothing more may be waiting for the rest of a frame
                while connection.recv(2**16):
                    pass
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(20)
            while connection.recv(2**16):
                pass


def _accepted(request: str) -> bytes:
    """The answer to an opening handshake (RFC 6455, 4.2.2); the first subprotocol offered is taken."""
    headers = dict(re.findall(r"(?m)^([\w-]+): *(.*?)\r$", request))
    key = headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    offered = headers.get("Sec-WebSocket-Protocol", "").split(",")[0]
    chosen = f"Sec-WebSocket-Protocol: {offered}\r\n" if offered else ""
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
    ).encode()
