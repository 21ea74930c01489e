"""Reading the stream: requests in, samples out in their order, exactly once, whatever happens to the servers.

    client = StreamClient("ws://127.0.0.1:8000/ws")
    batches = (ReadRequest("train", seed=0, start=64 * k, stop=64 * (k + 1)) for k in range(1000))
    for samples in client.read(batches): ...

`ShardReader` is the same without a server, for debugging: identical samples straight from the shards.
"""

import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.streaming.answer import describe, samples_at, views
from diffusion_art.streaming.line import Line, LineError
from diffusion_art.streaming.session import Part, ReadRequest, Session, parts_of, samples_of
from diffusion_art.streaming.shards import Sample, ShardSet
from diffusion_art.streaming.wire import StreamInfo

__all__ = ["ReadRequest", "Sample", "ShardReader", "StreamClient", "StreamInfo"]

_START = "`python -m diffusion_art.stream data.path=FOLDER`"
_jitter = random.SystemRandom()  # leaves the global generator, which training may use, alone


class StreamClient:
    """Reads from any of `urls`, all serving the same data set.

    A server that breaks off, hangs for `timeout_s` or sends damaged bytes is left, and what was not yet
    received is asked again of the next one: the samples come out as if nothing had happened. A server is
    waited for `connect_for_s` at the start and `retry_for_s` in mid-run. `digest` is the data set that must
    be there, None for that of the first server. Connects when first read, so before that it may be sent to
    other processes.

    UserError when no server answers for that long, the token is wrong, or a server holds another data set.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        token: str | None = None,
        digest: str | None = None,
        timeout_s: float = 30.0,
        retry_for_s: float = 120.0,
        connect_for_s: float = 10.0,
    ) -> None:
        self.urls = (urls,) if isinstance(urls, str) else tuple(urls)
        if not self.urls:
            raise UserError("data.url names no server; give an address such as ws://host:8000/ws, or auto")
        self._token, self._digest, self._timeout_s = token, digest, timeout_s
        self._retry_for_s, self._connect_for_s = retry_for_s, connect_for_s
        self._url = _jitter.randrange(len(self.urls))  # so that readers spread over the servers
        self._info: StreamInfo | None = None
        self._lines: set[Line] = set()

    def info(self) -> StreamInfo:
        """What the servers hold."""
        patience = self._patience()
        while self._info is None:
            try:
                self._hang_up(self._dial(patience))
            except LineError as error:
                self._url += 1
                patience.failed(error)
        return self._info

    def read(self, requests: Iterable[ReadRequest], *, window: int = 8) -> Iterator[list[Sample]]:
        """The samples of each request, one list per request and in their order.

        `window` requests are under way at once: all that a server may send ahead, all that is held here.
        A sample that the server could not read has an empty image and caption.
        """
        info = self.info()
        source, waiting = iter(requests), deque[list[Part]]()
        patience, session = self._patience(), None
        try:
            while True:
                while len(waiting) < max(1, window) and (request := next(source, None)) is not None:
                    waiting.append(parts_of(request, info))
                if not waiting:
                    return
                while not all(part.done for part in waiting[0]):
                    try:
                        session = session or Session(self._dial(patience))
                        session.ask(part for parts in waiting for part in parts)
                        session.receive()
                        patience.rewarded()
                    except LineError as error:
                        if session is not None:
                            self._hang_up(session.line)
                            session = None
                        self._url += 1
                        patience.failed(error)
                yield [sample for part in waiting.popleft() for sample in part.samples]
        finally:
            if session is not None:
                self._hang_up(session.line)

    def close(self) -> None:
        """Hang up. What is read afterwards connects anew."""
        for line in list(self._lines):
            self._hang_up(line)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lines": set()}

    def _dial(self, patience: "_Patience") -> Line:
        """A line to the next server, proved to hold the data set we began with."""
        url = self.urls[self._url % len(self.urls)]
        open_within_s = min(self._timeout_s, max(1.0, patience.left_s()))
        line = Line(url, token=self._token, timeout_s=self._timeout_s, open_within_s=open_within_s)
        self._lines.add(line)
        expected = self._digest or (self._info and self._info.digest)
        if expected and line.info.digest != expected:
            self._hang_up(line)
            held = f"{line.info.name!r} ({line.info.digest})"
            wanted = f"{self._info.name!r} ({expected})" if self._info else f"the one with digest {expected}"
            raise UserError(
                f"the stream server at {url} holds data set {held}, this run reads {wanted}; "
                f"serve that one there, or begin a new run"
            )
        self._info = line.info
        return line

    def _hang_up(self, line: Line) -> None:
        self._lines.discard(line)
        line.close()

    def _patience(self) -> "_Patience":
        where = " or ".join(self.urls)
        if self._info is None:
            what = f"no stream server answers at {where}; start one with {_START}, or leave data.url at auto"
            return _Patience(self._connect_for_s, what)
        what = f"the stream server at {where} has broken off; start it again with {_START} and resume the run"
        return _Patience(self._retry_for_s, what)


class ShardReader:
    """Reads as StreamClient does, straight from the shards in `folder`, opened when first read."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._shards: ShardSet | None = None

    def info(self) -> StreamInfo:
        """What the folder holds."""
        return describe(self._open())

    def read(self, requests: Iterable[ReadRequest], *, window: int = 8) -> Iterator[list[Sample]]:
        """The samples of each request; `window` means nothing here."""
        shards = self._open()
        info = describe(shards)
        for request in requests:
            parts = parts_of(request, info)
            for part in parts:
                wanted = samples_at(shards, part.read(0))
                part.samples += samples_of(*views(shards, part.split, wanted))
            yield [sample for part in parts for sample in part.samples]

    def close(self) -> None:
        """Let go of the shards; reading opens them again."""
        self._shards = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_shards": None}

    def _open(self) -> ShardSet:
        if self._shards is None:
            self._shards = ShardSet.open(self._folder)
        return self._shards


class _Patience:
    """Waits longer after each failure in a row, and raises UserError when they go on for `limit_s`."""

    def __init__(self, limit_s: float, what: str) -> None:
        self._limit_s, self._what = limit_s, what
        self._failures, self._since = 0, 0.0

    def left_s(self) -> float:
        """How long failures may still go on."""
        return self._limit_s - (time.monotonic() - self._since if self._failures else 0.0)

    def rewarded(self) -> None:
        self._failures = 0

    def failed(self, error: LineError) -> None:
        if self._failures == 0:
            self._since = time.monotonic()
        self._failures += 1
        if self.left_s() <= 0:
            raise UserError(f"{self._what} (waited {self._limit_s:g} s, at last: {error})") from None
        delay_s = min(2.0, 0.05 * 2 ** min(self._failures, 10)) * _jitter.uniform(0.5, 1.5)
        time.sleep(max(0.0, min(delay_s, self.left_s())))
