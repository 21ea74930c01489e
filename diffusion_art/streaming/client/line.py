"""One connection to one stream server, and how long to go on trying. What may pass is a LineError, what will not is a
UserError.
"""

import os
import random
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException

from diffusion_art.errors import UserError
from diffusion_art.net import client_context, headers_of
from diffusion_art.streaming.client.connection import Connection
from diffusion_art.streaming.wire import (
    MAX_FRAME_BYTES,
    SUBPROTOCOL,
    Frame,
    Hello,
    Message,
    StreamInfo,
    WireError,
    decode_frame,
    pack_message,
    unpack_message,
)


class LineError(Exception):
    """The connection is of no more use; another one may be."""


class OtherProtocol(UserError):
    """The server answers, but speaks none of our subprotocols: perhaps EIR's protocol, which has none."""


@contextmanager
def explained(url: str, token: str | None) -> Iterator[None]:
    """What goes wrong while dialling `url` comes out as LineError or UserError."""
    try:
        yield
    except InvalidURI as error:
        raise _no_address(url, error.msg) from None
    except InvalidStatus as error:
        raise _explain(url, error.response.status_code, token) from None
    except ssl.SSLCertVerificationError as error:
        raise UserError(
            f"the certificate of the stream server at {url} is not trusted ({error.verify_message}); give it, or that "
            f"of the authority that signed it, with data.ca=FILE"
        ) from None
    except (OSError, WebSocketException) as error:
        raise LineError(f"{url}: {one_line(error)}") from None
    except ValueError as error:  # a port that is not a number, or too large, a host that is no name
        raise _no_address(url, one_line(error)) from None


class Line:
    """An open connection; `info` is what the server holds.

    LineError when the server is not open within `open_within_s` or then leaves us waiting for `timeout_s`,
    UserError when the server is not ours (then OtherProtocol) or wants another token.
    """

    def __init__(
        self, url: str, *, token: str | None, timeout_s: float, open_within_s: float, ca: str | None = None
    ) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._owner = os.getpid()
        with explained(url, token):
            self._connection = Connection(
                url,
                subprotocol=SUBPROTOCOL,
                headers=headers_of(token),
                max_bytes=MAX_FRAME_BYTES,
                open_within_s=open_within_s,
                tls=client_context(ca) if url.lower().startswith("wss:") else None,
            )
        try:
            self.info = self._greet(open_within_s)
        except BaseException:
            self.close()
            raise

    def _greet(self, within_s: float) -> StreamInfo:
        if self._connection.subprotocol != SUBPROTOCOL:
            raise OtherProtocol(
                f"the server at {self.url} does not speak {SUBPROTOCOL}, so it is no stream server of ours"
            )
        self.send(Hello())
        answer = self.receive(within_s=within_s)
        if not isinstance(answer, StreamInfo):
            raise LineError(f"{self.url}: greeted with {type(answer).__name__}")
        return answer

    def send(self, *messages: Message) -> None:
        """Send control messages, all at once."""
        try:
            self._connection.send(*map(pack_message, messages))
        except (OSError, WebSocketException) as error:
            raise LineError(f"{self.url}: {one_line(error)}") from None

    def receive(self, *, within_s: float | None = None) -> Frame | Message:
        """The next thing the server says, frames without a copy of their samples."""
        try:
            data = self._connection.recv(within_s or self._timeout_s)
            return unpack_message(data) if isinstance(data, str) else decode_frame(data)
        except TimeoutError:
            raise LineError(f"{self.url}: no answer within {within_s or self._timeout_s:g} s") from None
        except (OSError, WebSocketException, WireError) as error:
            raise LineError(f"{self.url}: {one_line(error)}") from None

    def close(self) -> None:
        """Hang up. Does nothing in a forked child of the process that dialled: the line is not its own."""
        if os.getpid() == self._owner:
            self._connection.close()


def _no_address(url: str, why: str) -> UserError:
    return UserError(f"{url!r} is no stream address ({why}); one looks like ws://host:8000/ws")


def _explain(url: str, status: int, token: str | None) -> UserError | LineError:
    if status in (401, 403):
        what = "asks for a token; set data.token" if token is None else "does not accept our token; check data.token"
        return UserError(f"the stream server at {url} {what}")
    if status in (426, 505):  # what a WebSocket server says of a plain request, or one of HTTP/1.0
        return UserError(
            f"{url} answers with HTTP status {status}: a proxy before it passes the request on, and not that it is for "
            "a WebSocket. In nginx, set proxy_http_version 1.1 and the headers Upgrade and Connection."
        )
    if status >= 500:
        return LineError(f"{url}: HTTP status {status}{', it has all the clients it takes' * (status == 503)}")
    return UserError(
        f"{url} answers with HTTP status {status} and not as a stream; an address looks like ws://host:8000/ws"
    )


def one_line(error: Exception) -> str:
    """What `error` says."""
    return " ".join(str(error).split()) or type(error).__name__


jitter = random.SystemRandom()  # leaves the global generator, which training may use, alone


def delay_s(failures: int, chance: random.Random = jitter) -> float:
    """The wait after so many failures in a row: about 0.1 s, then twice as long each time, up to 2 s."""
    return min(2.0, 0.05 * 2 ** min(failures, 10)) * chance.uniform(0.5, 1.5)


class Turns:
    """The servers at `urls` one after the other, in an order of one reader's own.

    So readers spread over the servers, and those of a server that is gone over all others.
    """

    def __init__(self, urls: Sequence[str], chance: random.Random = jitter) -> None:
        self._order, self._passed = chance.sample(list(urls), len(urls)), 0

    @property
    def url(self) -> str:
        """Whose turn it is."""
        return self._order[self._passed % len(self._order)]

    def pass_on(self) -> None:
        """It is the next one's turn."""
        self._passed += 1


class Patience:
    """Waits longer after each failure in a row, and raises UserError when they go on for `limit_s`."""

    def __init__(self, limit_s: float, what: str) -> None:
        self._limit_s, self._what = limit_s, what
        self._failures, self._since = 0, 0.0

    def left_s(self) -> float:
        """How long failures may still go on."""
        return self._limit_s - (time.monotonic() - self._since if self._failures else 0.0)

    def rewarded(self) -> None:
        """Something came: failures count from none again."""
        self._failures = 0

    def failed(self, error: LineError) -> None:
        """Wait before the next try."""
        if self._failures == 0:
            self._since = time.monotonic()
        self._failures += 1
        if self.left_s() <= 0:
            raise UserError(f"{self._what} (waited {self._limit_s:g} s, at last: {error})") from None
        time.sleep(max(0.0, min(delay_s(self._failures), self.left_s())))
