#!/usr/bin/env bash
# pylance 14.0.2: `ShardedFragmentSampler(rank, world_size, randomize=True)` and `ShardedBatchSampler` share a Lance data set out to processes in random
# order. One would guess that each epoch has an order of its own. Both shuffle by their `seed` alone, which nothing changes from epoch to epoch: all epochs have the
# order of the first. And they do it with Python's global generator, which they seed anew at the beginning of each epoch, in each process. So whatever a training draws
# by `random` in that process begins again with the same numbers: a caption that was dropped in the first epoch is dropped in all of them, a picture that was flipped
# is always flipped, and all processes drop and flip alike, whatever seed each was given. Nothing is said. Draw from a generator of your own, and make a sampler with
# another seed for each epoch.
# Seen: 1,000 pictures with captions that are dropped with a chance of 0.1: in 5 epochs one order, and 101 pictures (with the sampler of batches: 114) lose their caption
# in all 5 epochs, the others never; two processes, seeded differently, drop at the same places: 500 of 500. With a generator of one's own 419 lose it once or more,
# and none in all epochs.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check pylance==14.0.2 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - "$work" <<'PY'
import random
import sys
from collections import Counter
from importlib.metadata import version

import lance
import pyarrow as pa
from lance.sampler import ShardedBatchSampler, ShardedFragmentSampler

PICTURES, EPOCHS, DROP = 1_000, 5, 0.1

print("pylance", version("pylance"))
stored = lance.write_dataset(pa.table({"picture": list(range(PICTURES))}), f"{sys.argv[1]}/art.lance", max_rows_per_file=100)


def epochs(sampler, draw=random.random, count=EPOCHS):
    """Of each epoch: the pictures in the order they came, and whether each lost its caption."""
    return [
        [(picture, draw() < DROP) for batch in sampler(stored, batch_size=50, columns=["picture"]) for picture in batch["picture"].to_pylist()]
        for _ in range(count)
    ]


def dropped(epochs):
    return Counter(picture for epoch in epochs for picture, drop in epoch if drop)


for kind in (ShardedFragmentSampler, ShardedBatchSampler):
    random.seed(7)
    found = epochs(kind(0, 1, randomize=True))
    own = epochs(kind(0, 1, randomize=True), draw=random.Random(7).random)
    orders = len({tuple(picture for picture, _ in epoch) for epoch in found})
    always, once = Counter(dropped(found).values())[EPOCHS], len(dropped(found))
    own_always, own_once = Counter(dropped(own).values())[EPOCHS], len(dropped(own))
    places = []
    for rank in (0, 1):
        random.seed(rank)
        (epoch,) = epochs(kind(rank, 2, randomize=True), count=1)
        places.append([drop for _, drop in epoch])
    alike = sum(a == b for a, b in zip(*places, strict=True))
    print(f"{kind.__name__}: orders in {EPOCHS} epochs: {orders}; captions lost once or more: {once}, in all epochs: {always}")
    print(f"  two processes drop alike: {alike} of {len(places[0])}; with a generator of one's own: once or more {own_once}, in all epochs {own_always}")
    assert orders == 1, orders
    assert always == once > 50, (always, once)
    assert own_once > 300 and own_always == 0, (own_once, own_always)
    assert alike == PICTURES // 2, alike
PY
