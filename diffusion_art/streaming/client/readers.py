"""Reading the stream: requests in, samples out in their order, exactly once, whatever happens to the servers.

    client = StreamClient("ws://127.0.0.1:8000/ws")
    batches = (ReadRequest("train", seed=0, start=64 * k, stop=64 * (k + 1)) for k in range(1000))
    for samples in client.read(batches): ...

Requests are cut by epochs into parts, which are asked over a line and put together again from frames. `ShardReader`
(shard_reader.py) is the same without a server.
"""

import shlex
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.net import token_of
from diffusion_art.shards.manifest import samples_in
from diffusion_art.shards.order import spans
from diffusion_art.shards.reader import Sample
from diffusion_art.streaming.client.line import Line, LineError, Patience, Turns
from diffusion_art.streaming.wire import Error, Frame, Read, StreamInfo

__all__ = ["ReadRequest", "Sample", "StreamClient", "StreamInfo"]

_STREAM = "python -m diffusion_art.stream data.path=FOLDER"
_START = f"`{_STREAM}`"
_DECODE = f"{_STREAM} decode=true"


@dataclass(frozen=True)
class ReadRequest:
    """Positions [start, stop) of the endless order of `split` under `seed`; None: the order of the index."""

    split: str
    seed: int | None
    start: int
    stop: int


class StreamClient:
    """Reads from any of `urls`, all serving the same data set.

    A server that breaks off, hangs for `timeout_s` or sends damaged bytes is left, and what was not yet
    received is asked again of another one: the samples come out as if nothing had happened. A server is
    waited for `connect_for_s` at the start and `retry_for_s` in mid-run. `met` is what a server of this run was
    found to hold: the same samples and captions must be there, and this is mid-run. None: those of the first
    server. It connects at the first read, so before that it may be sent to other processes.

    Without a `token` that of $DIFFUSION_ART_STREAM_TOKEN is used. `ca` is a PEM file of certificates to trust
    (wss:// addresses), None for the system's.

    `codec` is the form in which the pictures come (wire.py), `checksum` whether each frame is proved to have
    arrived as it was sent. `remedy` is what helps where a server has no such codec. No more than about `window_bytes`
    are asked for ahead.

    UserError when no server answers for that long, the token is wrong, or a server holds another data set, makes
    other captions, or has not the codec.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        token: str | None = None,
        ca: str | None = None,
        met: StreamInfo | None = None,
        codec: str = "jpeg",
        checksum: bool = True,
        remedy: str = f"start it again with `{_DECODE}`, or set data.payload=jpeg",
        window_bytes: int = 64 * 2**20,
        timeout_s: float = 30.0,
        retry_for_s: float = 120.0,
        connect_for_s: float = 10.0,
    ) -> None:
        self.urls = (urls,) if isinstance(urls, str) else tuple(urls)
        if not self.urls:
            raise UserError("data.url names no server; give an address such as ws://host:8000/ws, or auto")
        self._token = token_of(token)
        self._ca, self._met, self._timeout_s = ca, met, timeout_s
        self._retry_for_s, self._connect_for_s = retry_for_s, connect_for_s
        self.codec, self._checksum, self._window_bytes = codec, checksum, window_bytes
        self._remedy = remedy
        self._turns = Turns(self.urls)
        self._info: StreamInfo | None = None
        self._lines: set[Line] = set()

    def info(self) -> StreamInfo:
        """What the servers hold."""
        patience = self._patience()
        while self._info is None:
            try:
                self._hang_up(self._dial(patience))
            except LineError as error:
                self._turns.pass_on()
                patience.failed(error)
        return self._info

    def read(self, requests: Iterable[ReadRequest], *, window: int = 8) -> Iterator[list[Sample]]:
        """The samples of each request, one list per request and in their order.

        Up to `window` requests are under way at once, as many as `window_bytes` has room for: all that a server
        may send ahead, all that is held here. A sample that the server could not read has an empty image and
        caption.
        """
        info = self.info()
        source, waiting = iter(requests), deque[list[Part]]()
        patience, session = self._patience(), None
        room = _Room(self._window_bytes, mean_bytes=3 * info.image_size_px**2)
        try:
            while True:
                if 2 * len(waiting) <= window:  # half a window at a time: each time wakes the server
                    while len(waiting) < max(1, window) and room.left() and (request := next(source, None)) is not None:
                        waiting.append(parts_of(request, info))
                        room.asked(request.stop - request.start)
                if not waiting:
                    return
                while not all(part.done for part in waiting[0]):
                    try:
                        if session is None:
                            session = Session(self._dial(patience), codec=self.codec, checksum=self._checksum)
                            info = session.line.info  # each server says how much it gives at once
                            waiting = deque(cut(parts, info.max_count) for parts in waiting)
                        session.ask(part for parts in waiting for part in parts)
                        session.receive()
                        patience.rewarded()
                    except LineError as error:
                        if session is not None:
                            self._hang_up(session.line)
                            session = None
                        self._turns.pass_on()
                        patience.failed(error)
                parts = waiting.popleft()
                samples = list(chain.from_iterable(part.samples for part in parts))
                room.came(len(samples), sum(part.bytes for part in parts))
                yield samples
        finally:
            if session is not None:
                self._hang_up(session.line)

    def close(self) -> None:
        """Hang up. What is read afterwards connects anew."""
        for line in list(self._lines):
            self._hang_up(line)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lines": set()}

    def _dial(self, patience: Patience) -> Line:
        """A line to the server whose turn it is, proved to hold the data set we began with."""
        url = self._turns.url
        open_within_s = min(self._timeout_s, max(1.0, patience.left_s()))
        line = Line(url, token=self._token, ca=self._ca, timeout_s=self._timeout_s, open_within_s=open_within_s)
        self._lines.add(line)
        if (known := self._info or self._met) is not None and (refused := _other(line, known)):
            self._hang_up(line)
            raise UserError(refused)
        if self.codec not in line.info.codecs:
            self._hang_up(line)
            raise UserError(
                f"the stream server at {url} has its pictures as {' or '.join(line.info.codecs)}, not as "
                f"{self.codec}; {self._remedy}"
            )
        self._info = line.info
        return line

    def _hang_up(self, line: Line) -> None:
        self._lines.discard(line)
        line.close()

    def _patience(self) -> Patience:
        where = " or ".join(self.urls)
        if self._info is None and self._met is None:
            what = f"no stream server answers at {where}; start one with {_START}, or leave data.url at auto"
            return Patience(self._connect_for_s, what)
        what = f"the stream server at {where} has broken off; start it again with {_START} and resume the run"
        return Patience(self._retry_for_s, what)


def _other(line: Line, known: StreamInfo) -> str | None:
    """Why a server cannot take the place of one that holds what is `known`, or None when it can."""
    info = line.info
    if info.digest != known.digest:
        return (
            f"the stream server at {line.url} holds data set {info.name!r} ({info.digest}), this run reads "
            f"{known.name!r} ({known.digest}); serve that one there, or begin a new run"
        )
    if info.caption_template != known.caption_template:
        told = [] if known.caption_template is None else [shlex.quote(f"caption_template={known.caption_template}")]
        return (
            f"the stream server at {line.url} makes its captions by {info.caption_template!r}, this run reads those "
            f"by {known.caption_template!r}; start it again with `{' '.join([_STREAM, *told])}`, or begin a new run"
        )
    return None


class _Room:
    """How much may be asked for ahead: requests whose samples, as large as those that came, fill `limit_bytes`.

    `mean_bytes` of a sample is believed until the first have come.
    """

    def __init__(self, limit_bytes: int, *, mean_bytes: float) -> None:
        self._limit_bytes, self._mean_bytes = limit_bytes, mean_bytes
        self._samples = 0  # under way

    def left(self) -> bool:
        """Whether one more request may be made; always, when none is under way."""
        return self._samples == 0 or self._samples * self._mean_bytes < self._limit_bytes

    def asked(self, samples: int) -> None:
        self._samples += samples

    def came(self, samples: int, size: int) -> None:
        self._samples -= samples
        if samples:
            mean = size / samples
            self._mean_bytes = max(mean, 0.5 * (self._mean_bytes + mean))  # quick to rise, slow to fall


# ---------------------------------------------------------------------- requests on their way


@dataclass(eq=False)
class Part:
    """Places of one epoch, read up to `place`: what one message asks for."""

    split: str
    seed: int | None
    epoch: int
    place: int
    stop: int
    samples: list[Sample] = field(default_factory=list)
    bytes: int = 0  # of their images
    session: "Session | None" = None  # that has been asked

    @property
    def done(self) -> bool:
        return self.place == self.stop

    def read(self, number: int, codec: str = "jpeg", checksum: bool = True) -> Read:
        return Read(number, self.split, self.seed, self.epoch, self.place, self.stop, codec, checksum)

    def take(self, frame: Frame) -> bool:
        """Append the samples of `frame` if it goes on where we are: this makes reading exactly-once."""
        end = self.place + len(frame.keys)
        if frame.position != self.place or not self.place < end <= self.stop or frame.last != (end == self.stop):
            return False
        self.samples += samples_of(frame.keys, frame.captions, frame.images)
        self.bytes += sum(map(len, frame.images))
        self.place = end
        return True


class Session:
    """What has been asked over one line and not yet answered."""

    def __init__(self, line: Line, *, codec: str = "jpeg", checksum: bool = True) -> None:
        self.line = line
        self._codec, self._checksum = codec, checksum
        self._asked: dict[int, Part] = {}
        self._numbers = count()

    def ask(self, parts: Iterable[Part]) -> None:
        """Ask for the rest of those that this line was not asked yet, in one go."""
        new = {next(self._numbers): part for part in parts if part.session is not self and not part.done}
        if new:
            self.line.send(*(part.read(number, self._codec, self._checksum) for number, part in new.items()))
        for number, part in new.items():
            self._asked[number] = part
            part.session = self

    def receive(self) -> None:
        """Take the next frame."""
        answer = self.line.receive()
        if isinstance(answer, Error):
            raise UserError(f"the stream server at {self.line.url} refuses a request: {answer.message} ({answer.code})")
        if not isinstance(answer, Frame):
            raise LineError(f"{self.line.url}: sent a {type(answer).__name__} message for an answer")
        part = self._asked.get(answer.request)
        if part is None or not part.take(answer):
            raise LineError(f"{self.line.url}: answered what was not asked")
        if part.done:
            del self._asked[answer.request]


def parts_of(request: ReadRequest, info: StreamInfo) -> list[Part]:
    """`request` by epochs, and by what a server gives at once."""
    samples = samples_in(request.split, info.splits, info.buckets)
    if not samples:
        has = ", ".join(f"{n} in {split!r}" for split, n in info.splits.items())
        raise UserError(f"data set {info.name!r} has no samples in split {request.split!r}, but {has}")
    whole = [
        Part(request.split, request.seed, epoch, first, stop)
        for epoch, first, stop in spans(samples, request.start, request.stop - request.start)
    ]
    return cut(whole, info.max_count)


def cut(parts: Iterable[Part], most: int) -> list[Part]:
    """`parts` in pieces of which each has no more than `most` samples to come."""
    return [piece for part in parts for piece in _pieces(part, most)]


def _pieces(part: Part, most: int) -> Iterator[Part]:
    """`part`, with what it has got, up to where a request for its rest may end, and parts of what comes after."""
    after, part.stop = part.stop, min(part.stop, part.place + most)
    yield part
    for start in range(part.stop, after, most):
        yield Part(part.split, part.seed, part.epoch, start, min(start + most, after))


def samples_of(
    keys: np.ndarray, captions: Sequence[memoryview | None], images: Sequence[memoryview | None]
) -> list[Sample]:
    return [
        Sample(f"{key:016x}", b"" if image is None else image, str(caption or b"", "utf-8", "replace"))
        for key, caption, image in zip(keys.tolist(), captions, images, strict=True)
    ]
