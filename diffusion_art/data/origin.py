"""Where the samples of a run come from, and how a reader of them is opened.

They come from the run's own shards, or from a server that runs already. Its own shards a run reads from disk
(`url: shards`) or from a server that it starts for itself (`url: auto`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

from diffusion_art.data.dataset import Reader
from diffusion_art.data.precomputed import PLAIN, Wanted
from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import open_shards, parts_of
from diffusion_art.shards.pixels import give, is_made
from diffusion_art.shards.places import ShardSpec
from diffusion_art.shards.reader import Sample
from diffusion_art.sizes import log_ratio, named, refuse_fractions, scaled_to, size_named
from diffusion_art.streaming.client.line import OtherProtocol
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.eir.client import EirReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.wire import StreamInfo

log = logging.getLogger(__name__)

Chosen = tuple[list[Sample], int | None]  # samples to validate on, and how many are left for training, if that is known


@runtime_checkable
class SelfMade(Protocol):
    """Shards that find or build themselves (`shards.build.locate.Shards`)."""

    def ready(self) -> ShardSpec: ...

    def are_squares(self) -> bool: ...


@dataclass
class Origin:
    """The shards of a run, or the servers at `url`, and what they say of themselves before a run begins.

    Nothing here starts a server but `open`, and all of it builds shards that are missing.
    """

    shards: ShardSpec | SelfMade
    url: str | list[str]
    token: str | None = None
    ca: str | None = None
    cache: str | None = None  # of pixels that were decoded before
    crc: bool = True  # proves that each frame arrived as it was sent
    server: ServerProcess | None = field(default=None, init=False)  # that the run started for itself
    _spec: ShardSpec | None = field(default=None, init=False)  # of the shards once they were made ready

    @property
    def is_ours(self) -> bool:
        """Whether the run has the shards themselves."""
        return self.url in ("auto", "shards")

    @property
    def address(self) -> str | list[str]:
        """Of the server that is read from; `shards` where there is none."""
        return self.server.url if self.server else self.url

    def spec(self) -> ShardSpec:
        """The run's own shards, which are built where they are missing."""
        if self._spec is None:
            self._spec = self.shards.ready() if isinstance(self.shards, SelfMade) else self.shards
        return self._spec

    def prepare(self, payload: str, wanted: Wanted | None) -> None:
        """Build the run's own shards, and make the `payload`, where that is missing.

        Raises:
            UserError: what is `wanted` was not computed of these shards.
        """
        if not self.is_ours:
            return
        spec = self.spec()
        if is_made(payload):
            give(open_shards(spec), payload, cache=self.cache)
        elif wanted is not None:
            shards = open_shards(spec)
            for part in parts_of(shards):
                if wanted.codec not in part.codecs:
                    there = ", ".join(name for name in part.codecs if ":" in name) or "nothing of any encoder"
                    raise UserError(f"{part.name} has {there} beside it, and not {wanted.codec}: {wanted.remedy}")

    # ------------------------------------------------------------------ what is there

    def training_samples(self) -> int:
        """Pictures of the training split.

        Raises:
            UserError: nobody can tell.
        """
        if self.is_ours:
            return open_shards(self.spec()).splits.get("train", 0)
        with closing(self._client()) as reader:
            try:
                info = reader.info()
            except OtherProtocol:
                info = self._eir_reader().info()
        return training_samples_of(info)

    def sizes(self, image_size_px: int) -> list[str]:
        """The sizes (`160x96`) that a run of `image_size_px` trains on where pictures keep their shape, the square
        among them; empty where all are squares.

        Raises:
            UserError: at `image_size_px` a side of a bucket is no whole number of pixels.
        """
        if self.is_ours and isinstance(self.shards, SelfMade) and self.shards.are_squares():
            return []
        with closing(self._plain_reader()) as reader, suppress(OtherProtocol):
            info = reader.info()
            asked = {"stored_px": info.image_size_px, "asked_px": image_size_px}
            refuse_fractions(info.buckets, **asked)
            found = {name for counts in info.buckets.values() for name in counts}
            square = (image_size_px, image_size_px)
            scaled = {scaled_to(size_named(name), **asked) for name in found} | ({square} if found else set())
            return [named(size) for size in sorted(scaled, key=log_ratio)]
        return []

    def captions(self, choose: Callable[[StreamInfo], Iterable[ReadRequest]]) -> list[str]:
        """The different captions of what `choose` asks of the data set. Empty where no picture has a caption, and for
        an EIR server, whose samples can be read only once.
        """
        with closing(self._plain_reader()) as reader, suppress(OtherProtocol):
            found = [sample.caption for answer in reader.read(choose(reader.info())) for sample in answer]
            return [caption for caption in dict.fromkeys(found) if caption.strip()]
        return []

    def served_name(self) -> str | None:
        """What the data set of a server that runs already is called, if the server says so at once."""
        if self.is_ours:
            return None
        with closing(self._client(connect_for_s=0.0)) as reader, suppress(UserError, OtherProtocol):
            return reader.info().name
        return None

    def _plain_reader(self) -> ShardReader | StreamClient:
        """One that asks for pictures as they are stored."""
        return ShardReader(self.spec()) if self.is_ours else self._client()

    def _client(self, **options: Any) -> StreamClient:
        return StreamClient(self.url, token=self.token, ca=self.ca, **options)

    def _eir_reader(self, **options: Any) -> EirReader:
        return EirReader(self.url, token=self.token, ca=self.ca, **options)

    # ------------------------------------------------------------------ opening

    def open(
        self,
        codec: str,
        *,
        wanted: Wanted | None,
        decode: bool,
        val_samples: int,
        agreed: Callable[[Callable[[], Chosen]], Chosen],
    ) -> tuple[StreamInfo, Callable[[], Reader]]:
        """What is read from, and how to open a reader that asks for `codec`, here or in another process.

        A server is started where the run's own shards are streamed, which has the pixels decoded with `decode`. Of a
        server that speaks only EIR's protocol `val_samples` are chosen for validation, by one process of the run:
        `agreed` calls a function in that one, and gives its answer in all.

        Raises:
            UserError: no such server or shards, or they cannot give `codec`.
        """
        opener = self._opener(codec, wanted=wanted, decode=decode)
        with closing(opener()) as reader:
            try:
                info = reader.info()
            except OtherProtocol:
                opener = self._eir_opener(codec, val_samples=val_samples, agreed=agreed)
                return opener().info(), opener
        if self.url != "shards":  # workers connect on their own, to these samples and captions and no others
            opener = partial(opener, met=info)
        return info, opener

    def _opener(self, codec: str, *, wanted: Wanted | None, decode: bool) -> Callable[..., ShardReader | StreamClient]:
        if self.url == "shards":
            return partial(ShardReader, self.spec(), codec=codec, cache=self.cache)
        if self.url == "auto":
            told = partial(os.kill, os.getpid())  # a signal for the server is one for the run
            settings = Settings(decode=decode, cache=self.cache, copy_ahead=True)  # a training asks for all of them
            self.server = ServerProcess(self.spec(), settings=settings, told=told)
        remedy = {} if wanted is None else {"remedy": wanted.remedy}
        return partial(
            StreamClient, self.address, token=self.token, ca=self.ca, codec=codec, checksum=self.crc, **remedy
        )

    def _eir_opener(
        self, codec: str, *, val_samples: int, agreed: Callable[[Callable[[], Chosen]], Chosen]
    ) -> Callable[[], EirReader]:
        if codec != "jpeg":
            raise UserError(f"an EIR server sends encoded pictures and captions, not {codec}; set {PLAIN}")
        log.info(
            "%s speaks EIR's protocol 1.0 only: the order of the samples is the server's, and a resumed run reads on "
            "from where the server is, and validates on the next samples there, which it has been trained on if it is "
            "past its first pass",
            self.url,
        )
        validation, samples = agreed(lambda: self._eir_reader().choose_validation(val_samples))
        return partial(self._eir_reader, validation=validation, samples=samples, met=True)

    def close(self) -> None:
        """Stop the server that was started."""
        if self.server is not None:
            self.server.stop()
        self.server = None


def training_samples_of(info: StreamInfo) -> int:
    """Pictures of the training split. UserError where the server does not say how many."""
    if "train" not in info.splits:
        raise UserError(f"{info.name} does not say how many samples it has; set trainer.max_steps instead")
    return info.splits["train"]
