"""The gate that every request passes before anything is made of it: who asks, from where, with how much, how slowly.

`Gate` is an ASGI middleware, outermost but for CORS, which answers the preflights of other pages and lets them read
what is refused here. What it refuses costs nothing: no body is read, no JSON parsed. It also puts the same few headers
on every answer, counts it, and turns an error of ours into a plain 500.

`PatientProtocol` stands before it, for connections. uvicorn gives each a task and then waits for ever: for a head that
comes one byte a minute, for a body that never ends, for a reader that never reads. Here each has its time, and when all
places are taken the connection that has kept silent longest makes room for a new one: it may be a slowloris, it is
never somebody's answer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from diffusion_art.net import is_loopback, plain_path, send_at_once
from diffusion_art.serving.api.errors import ApiError, internal, shown
from diffusion_art.serving.settings import Limits, Settings, host_of

log = logging.getLogger(__name__)

STREAM = "python -m diffusion_art.stream"
_UNREAD = ("/v1/images/edits", "/v1/images/variations")  # refused for what they are; nobody reads their bodies
SECURITY_HEADERS: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(eq=False)
class Gate:
    """`app` behind the gate. Paths that begin with one of `guarded` take a token, where there is one; `answered` is
    told the route, status and seconds of each answer.
    """

    app: ASGIApp
    _: KW_ONLY
    settings: Settings
    guarded: tuple[str, ...]
    answered: Callable[[str, int, float], None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # is a GET whose body uvicorn keeps back
            scope = {**scope, "method": "GET"}
        if (path := plain_path(scope["path"])) != scope["path"]:  # to ask again, a client may leave the body out
            scope = {**scope, "path": path}
        passage = _Passage(self.settings, self.guarded, scope, receive, send)
        began = time.perf_counter()
        try:
            passage.check()
            await self.app(scope, passage.receive, passage.send)
        except ApiError as refusal:
            await passage.refuse(refusal)
        except Exception as error:
            await passage.refuse(internal(error))
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "other")
            if self.answered is not None:
                self.answered(route, passage.status, seconds)
            level = logging.INFO if scope["method"] == "POST" else logging.DEBUG
            log.log(level, "%s %s %d in %.0f ms", scope["method"], route, passage.status, 1000 * seconds)


class _Passage:
    """One request on its way through."""

    def __init__(
        self, settings: Settings, guarded: tuple[str, ...], scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.settings, self.guarded, self.scope = settings, guarded, scope
        self.headers = Headers(scope=scope)
        self.status = 499  # the client went before it had an answer
        self.max_bytes = max_body_at(settings.limits, scope["path"])
        self.id = secrets.token_hex(8)
        self._receive, self._send = receive, send
        self._deadline: float | None = None
        self._body_bytes, self._body_done = 0, False

    def check(self) -> None:
        """ApiError for a request that goes no further."""
        path, method = self.scope["path"], self.scope["method"]
        host = self.headers.get("host")  # browsers send it; health checks in HTTP/1.0 do not
        if host is not None and not answers_to(self.settings, host):
            name = name_of(host) if shown(name_of(host)) else ""
            raise ApiError(
                421,
                f"This server does not go by the name in the Host header{name and ', '}{name}; "
                f"its owner can add it with hosts=[{name or '...'}].",
                code="unknown_host",
            )
        if self.settings.tokens and path.startswith(self.guarded) and method != "OPTIONS":
            customer = customer_of(self.settings, self.headers.get("authorization"))
            if customer is None:
                raise ApiError(
                    401,
                    "A token is needed, as the header 'Authorization: Bearer TOKEN'."
                    if "authorization" not in self.headers
                    else "This token is not known here.",
                    code="invalid_api_key",
                )
            self.scope["customer"] = customer
        packing = self.headers.get("content-encoding", "identity")
        if packing.lower() not in ("identity", ""):
            raise ApiError(
                415,
                f"Bodies are read as they are, not as {shown(packing) or 'that'}: send it without Content-Encoding.",
                code="unsupported_encoding",
            )
        length = self.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 15 or int(length) > self.max_bytes):
            raise self._too_large()

    async def receive(self) -> Message:
        """The body, as long as it is not too long and does not take too long; afterwards, the client's going."""
        if self._body_done:
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            self._deadline = loop.time() + self.settings.limits.body_timeout_s
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408,
                f"The body did not arrive within {self.settings.limits.body_timeout_s:g} s.",
                code="body_timeout",
            ) from None
        self._body_bytes += len(message.get("body", b""))
        self._body_done = not message.get("more_body", False)
        if self._body_bytes > self.max_bytes:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    async def refuse(self, error: ApiError) -> None:
        """Say why. What is left of the body is thrown away by the connection, so that its sender gets to read it."""
        if self.status == 499:  # else half an answer is out already, and it ends here
            await error.response(self.scope["path"])(self.scope, self.receive, self.send)

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"The body is larger than the {self.max_bytes:,} bytes that are read here.",
            code="body_too_large",
        )


# ---------------------------------------------------------------------- its rules


def customer_of(settings: Settings, authorization: str | None) -> str | None:
    """Who shows this header: a name for a token we know, None for others. Takes as long for any token.

    The token is a bearer's, or the password of `Basic`, as AUTOMATIC1111's clients show theirs.
    """
    scheme, _, token = (authorization or "").partition(" ")
    scheme, token = scheme.lower(), token.strip()
    if scheme == "basic":
        token = _password(token)
    given = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
    found = None
    for known in settings.tokens:
        digest = hashlib.sha256(known.encode()).digest()
        if hmac.compare_digest(given, digest) and scheme in ("bearer", "basic"):
            found = digest.hex()[:12]
    return found


def answers_to(settings: Settings, host: str) -> bool:
    """Whether a `Host` header is one of ours; without tokens only."""
    if settings.tokens:
        return True
    name = name_of(host).removesuffix(".")
    if settings.public_url is not None and name == host_of(settings.public_url):
        return True
    return name in settings.hosts or is_loopback(name) or name.endswith(".localhost")  # RFC 6761: never another machine


def name_of(host: str) -> str:
    """That of a `Host` header, without the port."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name.strip("[]").lower()


def _password(credentials: str) -> str:
    """That of `user:password` in base64; "" where it is none."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def max_body_at(limits: Limits, path: str) -> int:
    """Bytes that a request to `path` may bring."""
    if path.rstrip("/") in _UNREAD:
        return 1 << 40
    return limits.max_predict_body_bytes if path == "/predict" else limits.max_body_bytes


# ---------------------------------------------------------------------- connections


class PatientProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn's, on `limits`."""

    limits = Limits()
    _silent: asyncio.TimerHandle | None = None  # runs while the client owes us a request
    _silent_since = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.access_log = False  # `Gate` writes one, which names routes and no more

    _unread: asyncio.TimerHandle | None = None  # runs while it does not read what we send

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        send_at_once(transport)  # else an answer's body waits for word of its head
        self._await_request(self.limits.header_timeout_s)
        if len(self.connections) > self.limits.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._request_came()
        self._was_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.busy:
            self._request_came()

    def on_response_complete(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._await_request(self.limits.keep_alive_s + self.limits.header_timeout_s)
        super().on_response_complete()
        if self.busy:  # with a request that came before this answer was out
            self._request_came()

    def _unsupported_upgrade_warning(self) -> None:
        """In place of uvicorn's advice on what to install. A client that asks for another protocol gets HTTP/1.1,
        as the standard has it.
        """
        if self._get_upgrade() == b"websocket":
            log.info("a WebSocket client came, and here is HTTP alone; pictures to train on are streamed by %s", STREAM)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.limits.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._was_read()
        super().resume_writing()

    @property
    def busy(self) -> bool:
        """Whether a request of this connection is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def silent_since(self) -> float:
        """Since when this connection owes us a request, on the loop's clock; inf where it does not."""
        return float("inf") if self._silent is None else self._silent_since

    def _await_request(self, patience_s: float) -> None:
        """Also what is left of a request that was refused before its end counts as silence."""
        self._request_came()
        self._silent_since = self.loop.time()
        self._silent = self.loop.call_later(patience_s, self._end)

    def _request_came(self) -> None:
        if self._silent is not None:
            self._silent.cancel()
            self._silent = None

    def _was_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _end(self) -> None:
        self._request_came()
        self.transport.abort()

    def _make_room(self) -> None:
        """End the connection that has kept silent longest, or, where all are busy, this one."""
        others = (cast(PatientProtocol, each) for each in self.connections if each is not self)
        silent = min(others, key=lambda each: each.silent_since, default=self)
        (silent if silent.silent_since < float("inf") else self)._end()


def patient(limits: Limits) -> type[PatientProtocol]:
    """The protocol class with these limits, as uvicorn wants it."""
    attributes: dict[str, Any] = {"limits": limits}
    return type("LimitedProtocol", (PatientProtocol,), attributes)
