"""What the order is: recomputed from the epoch's permutation, without client, server or requests."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from diffusion_art.shards.order import EpochOrder
from diffusion_art.shards.reader import ShardSet

SEED = 3


def expected_keys(folder: Path, start: int, stop: int) -> list[str]:
    """The keys at endless positions [start, stop) of the training split under SEED."""
    shards = ShardSet.open(folder)
    samples = shards.splits["train"]
    keys = []
    for epoch, places in itertools.groupby(range(start, stop), lambda position: position // samples):
        order = EpochOrder(samples, seed=SEED, epoch=epoch, split="train", digest=shards.digest)
        keys += [shards.key("train", int(i)) for i in order(np.fromiter(places, np.int64) % samples)]
    return keys
