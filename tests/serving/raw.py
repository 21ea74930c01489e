"""HTTP by hand, for clients that do not behave."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def post(path: str, body: Any, *, length: int | None = None, connection: str = "close") -> bytes:
    """The bytes of a request; `length` is what its head says of its body."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: {connection}\r\n"
        f"Content-Length: {len(content) if length is None else length}\r\n\r\n"
    )
    return head.encode() + content


def read_head(link: socket.socket) -> bytes:
    """What comes up to the first empty line, or to the end of the connection."""
    found = b""
    while b"\r\n\r\n" not in found and (part := link.recv(4096)):
        found += part
    return found


def ended(link: socket.socket) -> bool:
    """Whether the other side ends the connection without a word, within the socket's timeout."""
    try:
        return link.recv(4096) == b""
    except ConnectionError:
        return True


def eventually(holds: Callable[[], bool], *, within_s: float = 20.0) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
