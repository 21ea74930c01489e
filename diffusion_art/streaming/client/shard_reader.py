"""Reading without a server, for debugging: the samples that a `StreamClient` gives, straight from the shards."""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_art.shards.mixture import Shards, open_shards
from diffusion_art.shards.pixels import give
from diffusion_art.shards.places import ShardSpec, components_of
from diffusion_art.shards.reader import Sample
from diffusion_art.streaming.answer import describe, draws_at, samples_at, views
from diffusion_art.streaming.client.readers import ReadRequest, parts_of, samples_of
from diffusion_art.streaming.wire import Read, StreamInfo


class ShardReader:
    """Reads as StreamClient does, straight from the shards that `spec` names, opened when first read.

    A form that is not the stored one is made in the folder `cache` where that was not done before (pixels.py).
    """

    def __init__(self, spec: ShardSpec, *, codec: str = "jpeg", cache: str | Path | None = None) -> None:
        self._components = components_of(spec)
        self.codec, self._cache = codec, cache
        self._shards: Shards | None = None

    def info(self) -> StreamInfo:
        """What the shards hold."""
        return describe(self._open())

    def read(self, requests: Iterable[ReadRequest], *, window: int = 8) -> Iterator[list[Sample]]:
        """The samples of each request, those of up to `window` brought from their disk or store at once."""
        shards = self._open()
        info, waiting = describe(shards), deque[list[tuple[Read, np.ndarray]]]()
        for request in requests:
            waiting.append([self._begun(shards, part.read(0)) for part in parts_of(request, info)])
            if len(waiting) >= window:
                yield self._samples(shards, waiting.popleft())
        while waiting:
            yield self._samples(shards, waiting.popleft())

    def _begun(self, shards: Shards, read: Read) -> tuple[Read, np.ndarray]:
        """The samples that `read` means, on their way."""
        wanted = samples_at(shards, read)
        shards.prefetch(read.split, wanted, self.codec)
        return read, wanted

    def _samples(self, shards: Shards, begun: list[tuple[Read, np.ndarray]]) -> list[Sample]:
        found = (views(shards, read.split, wanted, self.codec, draws_at(shards, read)) for read, wanted in begun)
        return [sample for seen in found for sample in samples_of(*seen)]

    def close(self) -> None:
        """Let go of the shards; reading opens them again."""
        self._shards = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": None}

    def _open(self) -> Shards:
        if self._shards is None:
            shards = open_shards(self._components)
            give(shards, self.codec, cache=self._cache)
            self._shards = shards
        return self._shards
