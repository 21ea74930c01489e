"""Real pictures to measure against, with their captions and columns: fresh paintings, or pictures out of shards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.data.dataset import StreamDataset
from diffusion_art.data.transforms import to_float
from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.places import ShardSpec
from diffusion_art.sources.painter import Painter
from diffusion_art.streaming.client.shard_reader import ShardReader

REFERENCE_SEED = 9_101_000  # of the painter: far from the seeds of data sets, prompts and the judge
COLUMNS = ("style", "genre", "artist")  # what slices are taken by
BATCH = 256  # pictures at a time; which ones come does not depend on it


@dataclass(frozen=True)
class Reference:
    """Pictures in [-1, 1] and their captions."""

    images: Float[Tensor, "n 3 h w"]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: slice) -> Reference:
        return Reference(self.images[rows], self.captions[rows])


class Pictures(ABC):
    """Real pictures in an order of their own: the first `count` are always the same."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Names the pictures and their order, their size included."""

    @property
    @abstractmethod
    def there(self) -> int | None:
        """How many there are; None where more can always be made."""

    @abstractmethod
    def captions(self, count: int) -> list[str]: ...

    @abstractmethod
    def parts(self, count: int) -> Iterator[Reference]:
        """The first `count`, at most `BATCH` at a time."""

    @abstractmethod
    def at(self, row: int) -> Reference:
        """One picture alone."""

    def reference(self, count: int) -> Reference:
        """The first `count`, all at once."""
        parts = list(self.parts(count))
        return Reference(torch.cat([part.images for part in parts]), [text for part in parts for text in part.captions])

    @abstractmethod
    def columns(self, count: int) -> list[dict[str, str]]:
        """Of each picture those of `COLUMNS` that it has."""


def check_there(pictures: Pictures, count: int) -> None:
    """UserError where there are fewer than `count`."""
    if pictures.there is not None and pictures.there < count:
        raise UserError(
            f"there are {pictures.there:,} real pictures, and {count:,} were asked for: give pictures={pictures.there}."
        )


class PainterPictures(Pictures):
    """Those of a painter, one after the other, painted when they are asked for."""

    def __init__(self, painter: Painter, *, there: int | None) -> None:
        self.painter = painter
        self._there = there

    @property
    def there(self) -> int | None:
        return self._there

    @property
    def digest(self) -> str:
        told = {name: value for name, value in self.painter.describe().items() if name != "count"}
        return "painter " + " ".join(f"{name}={value}" for name, value in sorted(told.items()))

    def captions(self, count: int) -> list[str]:
        return [self.painter.commission(index).caption for index in range(count)]

    def parts(self, count: int) -> Iterator[Reference]:
        for start in range(0, count, BATCH):
            yield self._painted(range(start, min(start + BATCH, count)))

    def at(self, row: int) -> Reference:
        return self._painted(range(row, row + 1))

    def _painted(self, rows: range) -> Reference:
        paintings = [self.painter.paint(index) for index in rows]
        pixels = torch.from_numpy(np.stack([painting.image for painting in paintings]))
        captions = [painting.commission.caption for painting in paintings]
        return Reference(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, captions)

    def columns(self, count: int) -> list[dict[str, str]]:
        return [_chosen(self.painter.commission(index).columns) for index in range(count)]


def fresh_paintings(*, image_size_px: int, seed: int = 0) -> PainterPictures:
    """Paintings that no training run saw, of style x colour combinations that training shows."""
    return PainterPictures(Painter(seed=REFERENCE_SEED + seed, image_size_px=image_size_px), there=None)


def painted(count: int, *, image_size_px: int, seed: int = 0) -> Reference:
    """`count` fresh paintings."""
    return fresh_paintings(image_size_px=image_size_px, seed=seed).reference(count)


class ShardPictures(Pictures):
    """A split of shards in the order that training shows it in, or in stored order with `seed` None."""

    def __init__(self, spec: ShardSpec, *, split: str, seed: int | None, image_size_px: int) -> None:
        self.spec = spec
        self.split = split
        self.seed = seed
        self.image_size_px = image_size_px
        self.shards = open_shards(spec)
        self._captions: list[str] = []  # those read so far

    @property
    def digest(self) -> str:
        return f"{self.shards.digest} {self.split} seed={self.seed} image_size_px={self.image_size_px}"

    @property
    def there(self) -> int:
        return self.shards.splits.get(self.split, 0)

    def captions(self, count: int) -> list[str]:
        if len(self._captions) < count:
            self._captions = self.reference(count).captions
        return self._captions[:count]

    def parts(self, count: int) -> Iterator[Reference]:
        for batch in self._batches(0, -(-count // BATCH), size=BATCH):
            rest = Reference(to_float(batch.images), batch.captions)[: count - (batch.cursor - 1) * BATCH]
            self._captions = [*self._captions, *rest.captions] if batch.cursor > 1 else rest.captions
            yield rest

    def at(self, row: int) -> Reference:
        batch = next(iter(self._batches(row, row + 1, size=1)))
        return Reference(to_float(batch.images), batch.captions)

    def columns(self, count: int) -> list[dict[str, str]]:
        places = self.shards.samples(self.split, self.seed, 0, 0, count)
        return [_chosen(self.shards.metadata(self.split, int(place))) for place in places]

    def _batches(self, first: int, last: int, *, size: int) -> StreamDataset:
        dataset = StreamDataset(
            lambda: ShardReader(self.spec),
            split=self.split,
            seed=self.seed,
            samples=self.there,
            global_batch_size=size,
            first_batch=lambda: first,
            last_batch=last,
            image_size_px=self.image_size_px,
        )
        dataset.settle()
        return dataset


def _chosen(columns: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(columns[name]) for name in COLUMNS if columns.get(name)}
