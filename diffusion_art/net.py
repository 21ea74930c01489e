"""What servers and clients share below their protocols: certificates, tokens, addresses, sockets, tasks."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import os
import re
import resource
import socket
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from diffusion_art.errors import UserError

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "DIFFUSION_ART_STREAM_TOKEN"  # where streams look for a token that nobody gave them
BACKLOG = 1024  # connections that wait to be accepted
_MACOS_FILES = 10_240  # where the hard limit is none, and more than this is refused


def answers(host: str, port: int, *, within_s: float) -> bool:
    """Whether something listens at `host`:`port`."""
    try:
        with socket.create_connection((host, port), timeout=within_s):
            return True
    except OSError:
        return False


# ---------------------------------------------------------------------- TLS


@dataclass(frozen=True)
class Tls:
    """A server's certificate (PEM, with the chain up to its authority) and private key, as file paths."""

    certificate: str
    key: str

    @classmethod
    def of(cls, certificate: str | None, key: str | None) -> Tls | None:
        """Of both files, or None for neither. UserError for one without the other."""
        if certificate is not None and key is not None:
            return cls(certificate, key)
        if certificate is None and key is None:
            return None
        missing = "tls.key" if key is None else "tls.certificate"
        raise UserError(f"{missing} is missing; a server with TLS needs tls.certificate=FILE and tls.key=FILE")

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer with this certificate. UserError when the files are missing or do not belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # An empty password, or a protected key would ask for one at the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise UserError(
                f"the certificate {self.certificate} and its key {self.key} cannot be used ({_reason(error)}); give "
                f"two PEM files that belong together, the key without a password: tls.certificate=FILE tls.key=FILE"
            ) from None
        return context


def warn_of_plain_tokens(tokens: object, tls: Tls | None) -> None:
    """Say so where a server asks for a token, which travels unencrypted."""
    if tokens and tls is None:
        log.info("without TLS the token can be read on the network; set tls.certificate and tls.key")


def client_context(ca: str | None) -> ssl.SSLContext:
    """Trusts the system's authorities, or only those in the PEM file `ca`. UserError when it cannot be read."""
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise UserError(
            f"data.ca={ca} is no PEM file of certificates ({_reason(error)}); give the server's certificate, or that "
            f"of the authority that signed it"
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


# ---------------------------------------------------------------------- tokens: `Authorization: Bearer TOKEN`


def token_of(given: str | list[str] | None) -> str | None:
    """The token given, else that of the environment, else none. UserError for several."""
    if isinstance(given, list):
        raise UserError(f"token is a list of {len(given)}, and a stream has one token: give token=SECRET.")
    return given or os.environ.get(TOKEN_VARIABLE) or None


def headers_of(token: str | None) -> dict[str, str]:
    """What a client adds to its request. HTTP headers are ISO-8859-1, and this one holds the token's UTF-8."""
    return {} if token is None else {"Authorization": f"Bearer {token}".encode().decode("latin-1")}


def authorised(given: Sequence[str], token: str | None) -> bool:
    """Whether the `Authorization` headers of a request are the token, compared in a time that tells nothing of it."""
    if token is None:
        return True
    scheme, _, shown = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return hmac.compare_digest(shown.encode("latin-1", "replace"), token.encode()) and scheme.lower() == "bearer"


# ---------------------------------------------------------------------- addresses and sockets


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine to itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_local_page(origin: str) -> bool:
    """Whether an `Origin` header names a page of this machine; those of other sites, and `null`, do not."""
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return False
    return is_loopback(host) or host.endswith(".localhost")


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


def url_of(listener: socket.socket, *, scheme: str, path: str) -> str:
    """The address clients on this machine, or for a wildcard address on others, connect to."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


def plain_path(path: str) -> str:
    """An address as it is called here: without slashes that a client's base URL brings along, and without the host that
    one behind a forward proxy puts before it.
    """
    return re.sub(r"/{2,}", "/", re.sub(r"^https?://[^/]*", "", path)).rstrip("/") or "/"


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
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, max(soft, _MACOS_FILES)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return


# ---------------------------------------------------------------------- tasks


async def until_one_ends(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run `works` at once until one of them ends, in whatever way, and cancel the others.

    What became of each, in order, errors and cancellations as values. Cancelled itself, it cancels them all and waits
    for their end.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    return results
