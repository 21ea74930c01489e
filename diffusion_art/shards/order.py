"""The order in which samples are seen: a pure function that knows nothing of ranks, workers or servers.

The endless order of a split of n samples runs through epoch after epoch; its position p is place p mod n
of epoch p // n, and the epochs' orders are independent. Global batch k is positions [k B, (k + 1) B) of the
endless order: batches straddle epochs, nothing is dropped, every sample comes exactly once per epoch.
"""

import hashlib
import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.randomness import scrambled

_ROUNDS = 12
_STRETCH = 4096  # places looked up at once
_STRETCHES = 256  # remembered, 32 KiB each


@runtime_checkable
class Order(Protocol):
    """Places of an epoch (int64, each in [0, samples)) -> the samples (int64) found there."""

    samples: int

    def __call__(self, positions: np.ndarray) -> np.ndarray: ...


class EpochOrder:
    """The shuffled order of one epoch: place -> sample, a keyed bijection of [0, samples).

    A generalised Feistel network shuffles [0, a b), with a = ceil(sqrt(samples)) and b = ceil(samples / a):
    x is the pair (x div b, x mod b), and each round adds a keyed hash of one half to the other, modulo its
    size. The few places (fewer than a) that land past the samples are sent through again until they land
    inside (cycle walking). Every place can be looked up alone; no permutation is held in memory.

    Paper: Black & Rogaway 2002, Ciphers with Arbitrary Finite Domains, https://eprint.iacr.org/2001/012
    """

    def __init__(self, samples: int, *, seed: int, epoch: int, split: str, digest: str) -> None:
        if not 1 <= samples < 2**62:
            raise ValueError(f"an order needs between 1 and 2^62 samples, {split!r} has {samples}")
        self.samples = samples
        self._a = math.isqrt(samples - 1) + 1
        self._b = -(-samples // self._a)
        identity = json.dumps(["diffusion-art-order-1", seed, epoch, split, digest, samples]).encode()
        keys = hashlib.shake_256(identity).digest(8 * _ROUNDS)
        self._keys = np.frombuffer(keys, dtype="<u8").astype(np.uint64)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The samples (int64) at `positions` (int64), places of this epoch in [0, samples)."""
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and not 0 <= positions.min() <= positions.max() < self.samples:
            raise ValueError(f"places {positions.min()}..{positions.max()} are not all in [0, {self.samples})")
        places = self._permute(positions.astype(np.uint64))
        while (outside := np.flatnonzero(places >= self.samples)).size:
            places[outside] = self._permute(places[outside])
        return places.astype(np.int64)

    def _permute(self, x: np.ndarray) -> np.ndarray:
        """The network on [0, a b). The halves swap at each round; after an even number they are back."""
        size, other_size = np.uint64(self._a), np.uint64(self._b)
        half, other = np.divmod(x, other_size)
        for key in self._keys:
            # The top 32 bits of the hash, scaled to [0, size).
            shift = ((scrambled(other ^ key) >> np.uint64(32)) * size) >> np.uint64(32)
            half, other = other, (half + shift) % size
            size, other_size = other_size, size
        return half * other_size + other


class SequentialOrder:
    """The order of the index, the same in every epoch: what validation reads."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The samples (int64) at `positions`: themselves."""
        return np.asarray(positions, dtype=np.int64)


class OrderMemo:
    """Ranges of an order, looked up in aligned stretches and remembered: readers go through an epoch together.

    A lookup costs some 0.15 ms however few places it has, a remembered range next to nothing. `order` gives the
    order of (split, seed, epoch). Thread-safe.
    """

    def __init__(self, order: Callable[[str, int | None, int], Order]) -> None:
        self._order = order
        self._stretch = lru_cache(_STRETCHES)(self._look_up)

    def samples(self, split: str, seed: int | None, epoch: int, start: int, stop: int) -> np.ndarray:
        """The samples (int64, read-only) at places [start, stop)."""
        if seed is None:  # cheaper than remembering
            return self._order(split, seed, epoch)(np.arange(start, stop))
        return _between(lambda number: self._stretch(split, seed, epoch, number), start, stop)

    def _look_up(self, split: str, seed: int, epoch: int, number: int) -> np.ndarray:
        order = self._order(split, seed, epoch)
        found = order(np.arange(number * _STRETCH, min(order.samples, (number + 1) * _STRETCH)))
        found.flags.writeable = False
        return found


def _between(stretch: Callable[[int], np.ndarray], start: int, stop: int) -> np.ndarray:
    """What stands at places [start, stop), of aligned stretches by their numbers."""
    first, last = start // _STRETCH, max(start, stop - 1) // _STRETCH
    found = stretch(first) if first == last else np.concatenate([stretch(i) for i in range(first, last + 1)])
    return found[start - first * _STRETCH : stop - first * _STRETCH]


def epoch_order(samples: int, *, seed: int | None, epoch: int, split: str, digest: str) -> EpochOrder | SequentialOrder:
    """The shuffled order of `seed`, or the order of the index when `seed` is None."""
    if seed is None:
        return SequentialOrder(samples)
    return EpochOrder(samples, seed=seed, epoch=epoch, split=split, digest=digest)


def draws(split: str, seed: int, epoch: int, places: np.ndarray) -> np.ndarray:
    """By what one of several captions is chosen at these places (int64) of an epoch: 64 random bits (uint64) for each.

    A pure function of (split, seed, epoch, place), so a visit has the same caption from any server. Of n captions
    it is number (upper 32 bits x n) >> 32, from 0. In the order of the index (no seed) it is the first, always.
    """
    identity = json.dumps(["diffusion-art-captions-1", seed, epoch, split]).encode()
    key = np.frombuffer(hashlib.shake_256(identity).digest(8), "<u8").astype(np.uint64)
    return scrambled(places.astype(np.uint64) ^ key)


def draws_between(split: str, seed: int, epoch: int, start: int, stop: int) -> np.ndarray:
    """`draws` at places [start, stop) (read-only), remembered in stretches as OrderMemo does."""
    return _between(lambda number: _draw_stretch(split, seed, epoch, number), start, stop)


@lru_cache(_STRETCHES)
def _draw_stretch(split: str, seed: int, epoch: int, number: int) -> np.ndarray:
    found = draws(split, seed, epoch, np.arange(number * _STRETCH, (number + 1) * _STRETCH))
    found.flags.writeable = False
    return found


def by_group(
    groups: np.ndarray, places: np.ndarray, look_up: Callable[[int, np.ndarray], np.ndarray], *, kind: type = np.int64
) -> np.ndarray:
    """`look_up(group, places of that group)`, put together in the order of the places."""
    found = np.empty(len(places), kind)
    for group in np.unique(groups).tolist():
        here = groups == group
        found[here] = look_up(group, places[here])
    return found


def spans(samples: int, start: int, count: int) -> list[tuple[int, int, int]]:
    """Endless positions [start, start + count) as (epoch, first place, place after the last), in order."""
    if samples < 1 or start < 0 or count < 0:
        raise ValueError(f"no {count} positions from {start} on in a split of {samples} samples")
    parts = []
    stop = start + count
    while start < stop:
        epoch, place = divmod(start, samples)
        end = min(samples, place + stop - start)
        parts.append((epoch, place, end))
        start += end - place
    return parts


def rank_slice(batch: int, global_batch_size: int, rank: int, world: int) -> tuple[int, int]:
    """Endless positions [start, stop) of rank `rank`'s share of global batch `batch`; shares are equal."""
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not one of {world}")
    if global_batch_size % world:
        raise UserError(
            f"a global batch of {global_batch_size} pictures cannot be shared equally by {world} processes; "
            f"set data.global_batch_size to a multiple of {world}"
        )
    share = global_batch_size // world
    start = batch * global_batch_size + rank * share
    return start, start + share
