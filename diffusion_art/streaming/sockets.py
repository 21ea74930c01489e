"""The sockets a server listens on: where, and for whom."""

import asyncio
import contextlib
import ipaddress
import resource
import socket

from diffusion_art.errors import UserError
from diffusion_art.streaming.addresses import is_loopback
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.wire import PATH

BACKLOG = 1024  # connections that wait to be accepted


def listen(host: str, port: int, *, token: str | None) -> socket.socket:
    """A listening socket. UserError when it is taken, or open to other machines without a token."""
    if token is None and not is_loopback(host):
        raise UserError(
            f"a stream server on {host} can be reached from other machines and has no token; set "
            f"token=SECRET, or host=127.0.0.1 for this machine alone"
        )
    both = host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except (OSError, OverflowError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host} port {port} ({reason}); choose another with port=N") from None


def url_of(listener: socket.socket, settings: Settings) -> str:
    """The address clients on this machine, or for a wildcard address on others, connect to."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"{settings.scheme}://{f'[{host}]' if ':' in host else host}:{port}{PATH}"


def tune(transport: asyncio.BaseTransport) -> None:
    """Send at once. Probe by TCP rather than by WebSocket pings: a trainer may pause for minutes and answer none."""
    send_at_once(transport)
    peer = transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # Linux; elsewhere the system's two hours
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)


def send_at_once(transport: asyncio.BaseTransport) -> None:
    """A short message does not wait for the peer's word on the last one, up to 40 ms.

    asyncio sees to that only where it opened the listening socket itself.
    """
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def allow_many_files() -> None:
    """Every mapped shard and every client holds a file descriptor: take as many as we may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
