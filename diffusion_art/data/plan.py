"""What each global batch consists of: a stretch of the endless order of a split, or of one of its buckets, and the side
of its pictures.

Both are pure functions of the batch's number. They know nothing of ranks, workers and interruptions, so all processes
that prepare or train on batch k have pictures of one size, whatever their number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from diffusion_art.shards.manifest import of_bucket
from diffusion_art.shards.mixed_order import InterleavedOrder
from diffusion_art.shards.order import EpochOrder
from diffusion_art.sizes import Size, size_named

_BLOCK = 64  # batches whose buckets are shuffled among themselves


@dataclass(frozen=True)
class Stretch:
    """Positions [start, stop) of the endless order of `split`, which has so many `samples`.

    `position` is the first picture's place in what the run sees, `size` that of its pictures; None: squares.
    """

    split: str
    samples: int
    start: int
    stop: int
    position: int
    size: Size | None = None


@runtime_checkable
class Plan(Protocol):
    """The number of a global batch -> where its pictures are read."""

    def __call__(self, k: int) -> Stretch: ...


class Consecutive:
    """Batch k is positions [k B, (k + 1) B) of the split's order; in one pass (`once`) the last may be short."""

    def __init__(self, split: str, samples: int, global_batch_size: int, *, once: bool = False) -> None:
        self._split, self._samples, self._size, self._once = split, samples, global_batch_size, once

    def __call__(self, k: int) -> Stretch:
        start = k * self._size
        stop = min(start + self._size, max(start, self._samples)) if self._once else start + self._size
        return Stretch(self._split, self._samples, start, stop, start)


class Bucketed:
    """Batches of one bucket each, every bucket as often as it has pictures.

    Of n pictures, n batches hold exactly n_b of bucket b, spread evenly (`InterleavedOrder`) and shuffled within blocks
    of 64. A bucket's batches go through its own endless order, where nothing is dropped: what an epoch of it leaves
    over begins its next batch. So in n batches every picture is seen B times, but
    for what its bucket's batches of the last block are ahead or behind. With `shares`, those of a mixture by weight, as
    many batches as these are together hold each bucket as often as its share.
    """

    def __init__(
        self,
        split: str,
        buckets: Mapping[str, int],
        global_batch_size: int,
        *,
        seed: int,
        digest: str,
        shares: Mapping[str, int] | None = None,
    ) -> None:
        self._split, self._batch, self._seed, self._digest = split, global_batch_size, seed, digest
        self._names, self._counts = list(buckets), list(buckets.values())
        self._shares = [shares[name] for name in buckets] if shares else self._counts
        self._order = InterleavedOrder(self._shares)
        self._offsets = np.cumsum([0, *self._shares])

    def __call__(self, k: int) -> Stretch:
        block, slot = divmod(k, _BLOCK)
        shuffled = EpochOrder(_BLOCK, seed=self._seed, epoch=block, split=f"{self._split}/buckets", digest=self._digest)
        passes, place = divmod(block * _BLOCK + int(shuffled(np.array([slot]))[0]), self._order.samples)
        found = int(self._order(np.array([place]))[0])
        bucket = int(np.searchsorted(self._offsets, found, side="right")) - 1
        turn = passes * self._shares[bucket] + found - int(self._offsets[bucket])
        return Stretch(
            of_bucket(self._split, self._names[bucket]),
            self._counts[bucket],
            turn * self._batch,
            (turn + 1) * self._batch,
            k * self._batch,
            size_named(self._names[bucket]),
        )


class BucketsOnce:
    """One pass over `samples` pictures of a split, bucket by bucket; a bucket's last batch may be short.

    Each bucket has its share of `samples`, which are its first pictures in the order of the index.
    """

    def __init__(self, split: str, buckets: Mapping[str, int], samples: int, global_batch_size: int) -> None:
        counts = list(buckets.values())
        chosen = InterleavedOrder(counts)(np.arange(min(samples, sum(counts))))
        owners = np.searchsorted(np.cumsum([0, *counts]), chosen, side="right") - 1
        shares = np.bincount(owners, minlength=len(counts)).tolist()
        self._stretches: list[Stretch] = []
        position = 0
        for name, share in zip(buckets, shares, strict=True):
            for start in range(0, share, global_batch_size):
                stop = min(start + global_batch_size, share)
                here = Stretch(of_bucket(split, name), buckets[name], start, stop, position, size_named(name))
                self._stretches.append(here)
                position += stop - start

    def __len__(self) -> int:
        return len(self._stretches)

    def __call__(self, k: int) -> Stretch:
        return self._stretches[k]


@dataclass(frozen=True)
class BatchSizes:
    """The side of the pictures of each global batch: `sizes_px[i]` from batch `starts[i]` on."""

    starts: tuple[int, ...]  # rising, the first one 0
    sizes_px: tuple[int, ...]

    def __call__(self, k: int) -> int:
        return self.sizes_px[bisect_right(self.starts, k) - 1]
