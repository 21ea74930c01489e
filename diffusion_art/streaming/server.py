"""The stream server: a thin, stateless loop around the shards and the wire.

One process, one event loop. A request is answered from the mapped shards in frames of about a megabyte.
Between two frames every other client has its turn. A client that does not read stops only its own answers:
one frame of each client, at most, waits in the server's memory.

    python -m diffusion_art.streaming.server FOLDER --port 8000
"""

import argparse
import asyncio
import contextlib
import hmac
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as websocket_server
from websockets.exceptions import ConnectionClosed, NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from diffusion_art.errors import UserError
from diffusion_art.streaming.answer import describe
from diffusion_art.streaming.process import TOKEN_VARIABLE, ServerProcess
from diffusion_art.streaming.shards import ShardSet
from diffusion_art.streaming.speak_v2 import speak_v2
from diffusion_art.streaming.wire import MAX_MESSAGE_BYTES, PATH, SUBPROTOCOL, StreamInfo

__all__ = ["ServerProcess", "open_server", "serve"]

_PARENT_POLL_S = 0.5

# A way of speaking for each WebSocket subprotocol a client may offer; None stands for offering none.
PASSES: dict[str | None, Callable[[ServerConnection, ShardSet], Awaitable[None]]] = {SUBPROTOCOL: speak_v2}


async def open_server(
    shards: ShardSet,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    listener: socket.socket | None = None,
) -> Server:
    """A running server, on `listener` when one is given; close it, or use it as an async context manager.

    UserError when other machines could reach it and there is no token, or when the port is taken.
    """
    if token is None and listener is None and not _is_loopback(host):
        raise UserError(
            f"a stream server on {host} can be reached from other machines and has no token; set "
            f"token=SECRET, or host=127.0.0.1 for this machine alone"
        )

    def admit(connection: ServerConnection, request: Request) -> Response | None:
        if token is not None:
            given = request.headers.get_all("Authorization")
            if len(given) != 1 or not hmac.compare_digest(
                given[0].encode(errors="surrogateescape"), f"Bearer {token}".encode()
            ):
                return connection.respond(HTTPStatus.UNAUTHORIZED, "This stream needs its token.\n")
        if request.path.partition("?")[0] != PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"The stream is at {PATH}.\n")
        return None

    def choose(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        chosen = next((name for name in offered if name in PASSES), None)
        if chosen is None and None not in PASSES:
            raise NegotiationError(f"this server speaks {', '.join(filter(None, PASSES))}")
        return chosen

    async def converse(connection: ServerConnection) -> None:
        _notice_dead_peers(connection)
        with contextlib.suppress(ConnectionClosed):
            await PASSES[connection.subprotocol](connection, shards)

    where: dict[str, Any] = {"sock": listener} if listener else {"host": host, "port": port}
    try:
        return await websocket_server(
            converse,
            process_request=admit,
            select_subprotocol=choose,
            compression=None,  # JPEG does not shrink, and an inflater is a way to be flooded
            max_size=MAX_MESSAGE_BYTES,
            ping_interval=None,  # see _notice_dead_peers
            close_timeout=2,
            logger=_quiet_logger(),
            **where,
        )
    except OSError as error:
        raise UserError(f"cannot listen on {host} port {port} ({error.strerror}); choose another with port=N") from None


def serve(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    listener: socket.socket | None = None,
    ready: Callable[[str, StreamInfo], None] | None = None,
    parent: int | None = None,
) -> None:
    """Serve the shards in `folder` until SIGINT or SIGTERM, or until `parent` is no longer our parent.

    `ready` is called with the address and what is served, once clients can connect. UserError as from
    `ShardSet.open` and `open_server`.
    """
    _allow_many_files()
    asyncio.run(_serve(ShardSet.open(folder), host, port, token, listener, ready, parent))


async def _serve(
    shards: ShardSet,
    host: str,
    port: int,
    token: str | None,
    listener: socket.socket | None,
    ready: Callable[[str, StreamInfo], None] | None,
    parent: int | None,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await open_server(shards, host=host, port=port, token=token, listener=listener) as server:
        if ready is not None:
            ready(url_of(server), describe(shards))
        while not stop.is_set() and (parent is None or os.getppid() == parent):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _PARENT_POLL_S if parent is not None else None)


def url_of(server: Server) -> str:
    """The address clients on this machine, or for a wildcard address on others, connect to."""
    host, port = next(iter(server.sockets)).getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"ws://{f'[{host}]' if ':' in host else host}:{port}{PATH}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _notice_dead_peers(connection: ServerConnection) -> None:
    """Probe by TCP rather than by WebSocket pings: a trainer may pause for minutes and answer none."""
    peer = connection.transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # Linux; elsewhere the system's two hours
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)


def _allow_many_files() -> None:
    """Every mapped shard and every client holds a file descriptor: take as many as we may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _quiet_logger() -> logging.Logger:
    """Failed handshakes of strangers and port scanners are no tracebacks in our log."""
    logger = logging.getLogger("websockets.server.stream")
    logger.setLevel(logging.CRITICAL)
    return logger


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; ServerProcess adds the options a person has no use for."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_art.streaming.server", description="Serve shards.")
    parser.add_argument("folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--listener", type=int, help="file descriptor of a listening socket, instead of host and port")
    parser.add_argument("--ready", type=int, help="file descriptor to write to when clients are answered")
    parser.add_argument("--parent", type=int, help="process id to stop with")
    options = parser.parse_args(arguments)
    listener = None if options.listener is None else socket.socket(fileno=options.listener)

    def ready(url: str, _: StreamInfo) -> None:
        if options.ready is None:
            sys.stderr.write(f"serving {options.folder} at {url}\n")
        else:
            os.write(options.ready, b"\n")
            os.close(options.ready)

    try:
        serve(
            options.folder,
            host=options.host,
            port=options.port,
            token=os.environ.get(TOKEN_VARIABLE),
            listener=listener,
            ready=ready,
            parent=options.parent,
        )
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
