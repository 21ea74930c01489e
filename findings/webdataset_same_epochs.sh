#!/usr/bin/env bash
# webdataset 1.0.2, torch 2.13.0: `detshuffle=True` shuffles shards so that a run can be repeated, and `ResampledShards(urls, deterministic=True)` draws them with
# replacement. Both count epochs, and add the count to their seed. One would guess that each epoch has another order, which is that of the same epoch of another run. The
# count is kept in the data set, and each worker of a `DataLoader` has a copy of it, which ends with the epoch. So with workers each epoch is the
# first one over again: the same order for the whole training, and of resampled shards the same draw, so that more than a third of the pictures, those which it
# missed, are never trained on. Nothing is said, and without workers, as in most tests, it is as guessed.
# Give the loader `persistent_workers=True`.
# Seen: 5 epochs over 200 pictures in 40 shards: different orders 5 without workers, 1 with 2, 5 with 2 persistent ones; resampled: pictures ever read 200, 125, 200.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 webdataset==1.0.2 numpy
cd "$work"
OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PY'
from importlib.metadata import version

import webdataset as wds
from torch.utils.data import DataLoader

SHARDS, EACH, EPOCHS = 40, 5, 5
PICTURES = SHARDS * EACH
URLS = "art-{00000..%05d}.tar" % (SHARDS - 1)


def number(sample):
    return int(sample["txt"])


def shuffled(share):
    return wds.WebDataset(URLS, shardshuffle=SHARDS, detshuffle=True, seed=0).map(number)


def resampled(share):
    """`share` pictures of drawn shards: an epoch of one worker."""
    shards = wds.ResampledShards(URLS, deterministic=True)
    return wds.DataPipeline(shards, wds.tarfile_to_samples(), wds.map(number)).with_epoch(share)


def epochs(make, workers, **settings):
    loader = DataLoader(make(PICTURES // max(workers, 1)), batch_size=None, num_workers=workers, **settings)
    return [tuple(int(picture) for picture in loader) for _ in range(EPOCHS)]


print("webdataset", version("webdataset"), "torch", version("torch"))
for shard in range(SHARDS):
    with wds.TarWriter(f"art-{shard:05}.tar") as tar:
        for k in range(EACH):
            tar.write({"__key__": f"{shard:05}-{k}", "txt": str(shard * EACH + k)})
for name, make in (("detshuffle", shuffled), ("resampled", resampled)):
    for said, workers, settings in (
        ("no workers", 0, {}),
        ("2 workers", 2, {}),
        ("2 persistent workers", 2, {"persistent_workers": True}),
    ):
        orders = epochs(make, workers, **settings)
        assert all(len(order) == PICTURES for order in orders), [len(order) for order in orders]
        distinct, read = len(set(orders)), len({picture for order in orders for picture in order})
        print(f"{name}, {said}: {distinct} different orders in {EPOCHS} epochs; {read} of {PICTURES} pictures are ever read")
        if said == "2 workers":
            assert distinct == 1 and (read < 0.8 * PICTURES if make is resampled else read == PICTURES), (distinct, read)
        else:
            assert distinct == EPOCHS and read > 0.9 * PICTURES, (distinct, read)
PY
