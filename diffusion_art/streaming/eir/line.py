"""One connection to one server that speaks protocol v1; errors as in client/line.py."""

import contextlib
import logging
import os
from typing import Any

import orjson
import pybase64
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from diffusion_art.errors import UserError
from diffusion_art.modes import from_base64
from diffusion_art.net import client_context, headers_of
from diffusion_art.shards.reader import Sample
from diffusion_art.streaming.client.line import LineError, explained, one_line
from diffusion_art.streaming.eir.wire import TERMINATE, VERSION

MAX_REPLY_BYTES = 2**28

_CLOSE_WITHIN_S = 1

_UNASKED = {"heartbeat", "status", "reset", "resetConfirmation"}  # EIR's own server tells all what one asked

log = logging.getLogger(__name__)
_quiet = logging.getLogger("websockets.client.stream")  # what went wrong is in our errors
_quiet.setLevel(logging.CRITICAL)


class EirLine:
    """An open connection. At most one request for data is under way: `asked` samples, 0 when there is none.

    LineError when the server is not open within `open_within_s`, leaves us waiting for `timeout_s`, breaks off or
    answers with an error; UserError when it wants another token or streams no captioned pictures.
    """

    def __init__(self, url: str, *, token: str | None, ca: str | None, timeout_s: float, open_within_s: float) -> None:
        self.url = url
        self.asked = 0
        self._timeout_s = timeout_s
        self._owner = os.getpid()
        with explained(url, token):
            self._connection = connect(
                url,
                ssl=client_context(ca) if url.lower().startswith("wss:") else None,
                additional_headers=headers_of(token),
                open_timeout=open_within_s,
                close_timeout=_CLOSE_WITHIN_S,
                ping_interval=None,  # a server that hangs is noticed by the wait for its answer
                compression=None,
                max_size=MAX_REPLY_BYTES,
                proxy=None,
                logger=_quiet,
                legacy=True,
            )
        try:
            self._send({"type": "handshake", "version": VERSION, "worker_id": 0})
            self._receive("handshake")
            self._image, self._caption = self._names(self.ask("getInfo", "info"))
        except BaseException:
            self.close()
            raise

    def ask(self, kind: str, answer: str, payload: dict[str, Any] | None = None) -> Any:
        """The payload of the server's `answer` to a request of this kind; not while data is under way."""
        self._send({"type": kind} if payload is None else {"type": kind, "payload": payload})
        return self._receive(answer)

    def reset(self) -> None:
        """Begin the pass anew, as far as the server does that."""
        self.ask("reset", "resetConfirmation", {})
        self._receive("reset")

    def ask_data(self, samples: int) -> None:
        """Have that many samples sent, as far as the server gives so many at once."""
        self._send({"type": "getData", "payload": {"batch_size": samples}})
        self.asked = samples

    def receive_data(self) -> list[Sample] | None:
        """What was asked for, one sample or more; None when the pass is over, which EIR's client reads of none too."""
        payload = self._receive("data")
        self.asked = 0
        if not isinstance(payload, list):
            raise self._unusable(f"data that is no list: {str(payload)[:50]}")
        if payload in ([], [TERMINATE]):
            return None
        return [self._sample(entry) for entry in payload]

    def farewell(self) -> None:
        """Hang up, having let the server know that what it sent has come: what it sends now, it may send again."""
        with contextlib.suppress(LineError):
            if not self.asked and os.getpid() == self._owner:
                self.ask("heartbeat", "heartbeat")
        self.close()

    def close(self) -> None:
        """Hang up. Does nothing in a forked child of the process that dialled."""
        if os.getpid() == self._owner:
            self._connection.close()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._connection.send(orjson.dumps(message), text=True)
        except (OSError, WebSocketException) as error:
            raise LineError(f"{self.url}: {one_line(error)}") from None

    def _receive(self, wanted: str) -> Any:
        """The payload of the next message of type `wanted`."""
        while True:
            try:
                message = orjson.loads(self._connection.recv(self._timeout_s, decode=False))
            except TimeoutError:
                raise LineError(f"{self.url}: no answer within {self._timeout_s:g} s") from None
            except orjson.JSONDecodeError as error:
                raise LineError(f"{self.url}: sent what is not JSON ({error})") from None
            except (OSError, WebSocketException) as error:
                raise LineError(f"{self.url}: {one_line(error)}") from None
            kind = message.get("type") if isinstance(message, dict) else None
            if kind == wanted:
                return message.get("payload")
            if not isinstance(kind, str) or kind not in _UNASKED:
                raise LineError(f"{self.url}: answered {str(message)[:200]} where {wanted!r} was due")

    def _names(self, info: Any) -> tuple[str, str]:
        """What this server calls its pictures and captions."""
        try:
            outputs = [name for name, entry in info["outputs"].items() if entry["type"] == "image"]
            captions = [name for name, entry in info["inputs"].items() if entry["type"] == "sequence"]
        except (TypeError, KeyError, AttributeError):
            raise self._unusable(f"an info that is none: {str(info)[:200]}") from None
        if not outputs or not captions:
            raise UserError(
                f"the EIR server at {self.url} streams no captioned pictures: it needs an output of type image and an "
                f"input of type sequence, and has {str(info)[:300]}; give data.url=ADDRESS of one that does"
            )
        return outputs[0], captions[0]

    def _sample(self, entry: Any) -> Sample:
        """A SAMPLE of the protocol. A picture that is no base64 comes out empty, for one that cannot be read."""
        try:
            name, caption = entry["sample_id"], entry["inputs"][self._caption]
            encoded = entry["target_labels"][self._image][self._image]
        except (TypeError, KeyError):
            raise self._unusable(f"a sample that is none: {str(entry)[:200]}") from None
        if not isinstance(name, str | int) or not isinstance(caption, str | None):
            raise self._unusable(f"a sample with id {str(name)[:50]} and caption {str(caption)[:50]}")
        try:
            image = pybase64.b64decode(encoded, validate=True)
        except (ValueError, TypeError):  # TypeError: pixels as a list
            image = from_base64(encoded) if isinstance(encoded, str) else b""
        if not image:
            log.warning("the picture of sample %.50s is no base64", name)
        return Sample(str(name), image, caption or "")

    def _unusable(self, what: str) -> UserError:
        """Of what comes again however often it is asked for."""
        return UserError(
            f"the EIR server at {self.url} sent {what}. A training reads samples of an id, a caption and a picture in "
            f"base64; repair the server, or give data.url=ADDRESS of another"
        )
