"""Orders over several components: mixed by weight for training, interleaved in proportion for validation.

Both are pure functions of the position, as in order.py, and number samples through the components one after the
other.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np

from diffusion_art.shards.order import EpochOrder, by_group

MOST_SAMPLES = 2**31  # of an interleaved order: its square must fit int64
BLOCK_POSITIONS = 1000  # in every such block each component has exactly its share


class InterleavedOrder:
    """The index orders of several components woven together in proportion to their sizes; each sample once.

    Of components with a and b samples, the first p places hold floor((p a + n/2) / n) of the first, n = a + b; with
    more of them the rest is shared out the same way. So any stretch shows all components, each in its own order.
    Samples are numbered through the components one after the other.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.samples = sum(sizes)
        self._sizes = tuple(sizes)
        if self.samples > MOST_SAMPLES:
            raise ValueError(f"an interleaved order has at most 2^31 samples, not {self.samples}")

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The samples (int64) at `positions`."""
        places = np.array(positions, dtype=np.int64)
        found = np.empty_like(places)
        waiting = np.arange(len(places))  # those whose component is still to be found
        rest, offset = self.samples, 0
        for size in self._sizes:
            if size == 0:
                continue
            left = places[waiting]
            before = (left * size + rest // 2) // rest
            mine = (left * size + size + rest // 2) // rest > before
            found[waiting[mine]] = offset + before[mine]
            waiting = waiting[~mine]
            places[waiting] -= before[~mine]
            rest, offset = rest - size, offset + size
        return found


class MixedOrder:
    """One epoch of a weighted mixture of components: place -> sample, numbered through the components.

    The endless order of a mixture is cut into blocks of BLOCK_POSITIONS. Every block gives component c exactly
    `quotas[c]` positions, spread by a keyed permutation of the block, and these are the next `quotas[c]` positions
    of the endless order that c has on its own under the same seed. So position p is found in O(1), and leaving the
    other components out of a mixture leaves what its component alone would show, epoch after epoch without loss
    or repeat. An epoch of the mixture is as many positions as it has samples.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        quotas: Sequence[int],
        *,
        seed: int,
        epoch: int,
        split: str,
        digests: Sequence[str],
        digest: str,
    ) -> None:
        if sum(quotas) != BLOCK_POSITIONS or any(bool(n) != bool(q) for n, q in zip(sizes, quotas, strict=True)):
            raise ValueError(f"shares {quotas} of {BLOCK_POSITIONS} do not fit components of {sizes} samples")
        self.samples = sum(sizes)
        self._sizes, self._quotas, self._digests = tuple(sizes), tuple(quotas), tuple(digests)
        self._offsets = [0, *accumulate(sizes)]
        self._seed, self._epoch, self._split, self._digest = seed, epoch, split, digest

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The samples (int64) at `positions` (int64), places of this epoch in [0, samples)."""
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and not 0 <= positions.min() <= positions.max() < self.samples:
            raise ValueError(f"places {positions.min()}..{positions.max()} are not all in [0, {self.samples})")
        first, offset = divmod(self._epoch * self.samples, BLOCK_POSITIONS)  # of any size: not for int64
        blocks, slots = np.divmod(positions + offset, BLOCK_POSITIONS)
        component, turn = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(blocks):
            here = blocks == block
            owner, count = _block(first + int(block), self._quotas, self._seed, self._split, self._digest)
            component[here] = owner[slots[here]]
            turn[here] = count[slots[here]] + (block - blocks.min()) * np.array(self._quotas)[component[here]]
        found = np.empty_like(positions)
        for number in np.unique(component):
            here = component == number
            begin = (first + int(blocks.min())) * self._quotas[number]
            found[here] = self._offsets[number] + self._own(int(number), begin, turn[here])
        return found

    def _own(self, number: int, begin: int, turns: np.ndarray) -> np.ndarray:
        """The samples of component `number` at positions begin + turns of its own endless order."""
        size = self._sizes[number]
        epoch, place = divmod(begin, size)
        epochs, places = np.divmod(turns + place, size)
        own = {"seed": self._seed, "split": self._split, "digest": self._digests[number]}
        return by_group(epochs, places, lambda later, here: EpochOrder(size, epoch=epoch + later, **own)(here))


def quotas_of(weights: Sequence[float], *, total: int = BLOCK_POSITIONS, least: int = 0) -> tuple[int, ...]:
    """`total` shared out in proportion to `weights`, by largest remainder (earlier ones first where equal). Where there
    is a weight at all it gets `least` or more, which the largest shares give.
    """
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    for i, weight in enumerate(weights):
        while weight > 0 and shares[i] < least:
            shares[max(range(len(shares)), key=shares.__getitem__)] -= 1
            shares[i] += 1
    return tuple(shares)


@lru_cache(maxsize=256)
def _block(number: int, quotas: tuple[int, ...], seed: int, split: str, digest: str) -> tuple[np.ndarray, np.ndarray]:
    """Of a block of a mixture, at each slot: whose it is, and how many of that component came before in the block."""
    slots = EpochOrder(BLOCK_POSITIONS, seed=seed, epoch=number, split=f"{split}/mixture", digest=digest)
    owner = np.searchsorted(np.cumsum(quotas), slots(np.arange(BLOCK_POSITIONS)), side="right")
    count = np.empty_like(owner)
    for component, quota in enumerate(quotas):
        count[owner == component] = np.arange(quota)
    return owner, count
