"""The server's front door: which connections are let in, what is answered to those that only ask over HTTP.

/ws         the stream, by WebSocket
/health     "ok" for everyone who asks
/metrics    Prometheus text, for those who know the token where there is one
"""

from collections.abc import Sequence
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from diffusion_art.net import authorised
from diffusion_art.streaming.server.exposition import Exposition
from diffusion_art.streaming.server.guest import Guest
from diffusion_art.streaming.server.metrics import Row, Table
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.wire import PATH, SUBPROTOCOL, StreamInfo


class Reception:
    """Lets clients in, or tells them why not, by the three hooks of websockets' opening handshake."""

    def __init__(self, settings: Settings, info: StreamInfo, table: Table, counts: Row) -> None:
        self._token, self._limits = settings.token, settings.limits
        self._table, self._counts = table, counts
        self._exposition = Exposition(table, info)

    def hear(self, connection: ServerConnection, request: Request) -> Response | None:
        """`process_request`: the answer to a client that does not want the stream, or may not have it."""
        path = request.path.partition("?")[0]
        if path == "/health":
            return connection.respond(HTTPStatus.OK, "ok\n")
        if not authorised(request.headers.get_all("Authorization"), self._token):
            given = "Authorization" in request.headers
            text = "This is not its token" if given else "This stream needs its token"
            text += ", as the header 'Authorization: Bearer TOKEN'.\n"
            response = self._refuse(connection, "token", HTTPStatus.UNAUTHORIZED, text)
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if path == "/metrics":
            self._counts.show()
            text, content_type = self._exposition.render(", ".join(request.headers.get_all("Accept")))
            response = connection.respond(HTTPStatus.OK, text)
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = content_type
            return response
        if path != PATH:
            return self._refuse(connection, "path", HTTPStatus.NOT_FOUND, f"The stream is at {PATH}.\n")
        return None

    def choose(self, _: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        """`select_subprotocol`: v2 for clients that offer it, v1 for those that offer none."""
        if SUBPROTOCOL in offered:
            return Subprotocol(SUBPROTOCOL)
        if offered:
            raise NegotiationError(f"this server speaks {SUBPROTOCOL}, or EIR's protocol with those who offer none")
        return None

    def settle(self, connection: ServerConnection, _: Request, response: Response) -> Response | None:
        """`process_response`: let the client in, if there is room."""
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            if response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UPGRADE_REQUIRED):
                self._counts.add("connections_refused", "protocol")
            return None
        if self._table.family_total("connections_open") >= self._limits.max_connections:
            text = f"This server has its {self._limits.max_connections} clients.\n"
            full = self._refuse(connection, "full", HTTPStatus.SERVICE_UNAVAILABLE, text)
            full.headers["Retry-After"] = "1"
            return full
        assert isinstance(connection, Guest)
        connection.let_in("v2" if connection.subprotocol == SUBPROTOCOL else "v1")
        return None

    def _refuse(self, connection: ServerConnection, reason: str, status: HTTPStatus, text: str) -> Response:
        self._counts.add("connections_refused", reason)
        return connection.respond(status, text)
