"""Large answers from the page cache to the network without passing through a buffer of ours.

asyncio joins what it is given and copies what a socket does not take at once, and `websockets` copies a message
twice before that. For a megabyte of pictures that is more work than all the rest, so a frame goes out by one
`writev` of its parts, and only what the socket does not take is handed to asyncio.
"""

import contextlib
import os
from asyncio import Transport
from collections.abc import Sequence

from diffusion_art.streaming.frame import Buffer

_WHOLE_TEXT, _WHOLE_BINARY = 0x81, 0x82  # FIN and the opcode of a message (RFC 6455, 5.2)
_MAX_PARTS = min(1024, os.sysconf("SC_IOV_MAX")) if hasattr(os, "sysconf") else 16


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
