"""Requests on their way: by epochs into parts, asked over a line, and put together again from frames."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.shards.manifest import samples_in
from diffusion_art.shards.order import spans
from diffusion_art.shards.reader import Sample
from diffusion_art.streaming.client.line import Line, LineError
from diffusion_art.streaming.wire import Error, Frame, Read, StreamInfo


@dataclass(frozen=True)
class ReadRequest:
    """Positions [start, stop) of the endless order of `split` under `seed`; None: the order of the index."""

    split: str
    seed: int | None
    start: int
    stop: int


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
