#!/usr/bin/env bash
# litdata 0.2.76, torch 2.13.0: `CombinedStreamingDataset(weights=[0.9, 0.1], batching_method="per_stream")` mixes two collections of pictures so that each batch
# is of one of them, as is needed where they have different sizes. One would guess that nine batches of ten are of the first, as `weights` says and as nine
# samples of ten are with the other method. After each batch the collection is drawn again until it is another one than before. Two collections take
# turns, so each has half of the batches whatever the weights are: a tenth that was meant as a garnish has five times its share, and nothing is said.
# Of three no one can have more than half. No setting turns it off.
# Draw the collection of each batch in code of one's own, over a loader for each.
# Seen: shares of 500 batches, weights 0.9 and 0.1: by sample 0.90, 0.10, per stream 0.50, 0.50; 0.8, 0.1 and 0.1: 0.80, 0.10, 0.10, per stream 0.47, 0.26, 0.27.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 litdata==0.2.76 numpy
cat >"$work/mix.py" <<'PY'
import sys
from collections import Counter
from importlib.metadata import version

from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset
from litdata.streaming.cache import Cache

BATCHES, BATCH = 500, 4
PICTURES = BATCHES * BATCH


def stored(folder, name):
    """A collection of pictures, each of which is the number of its collection."""
    writer = Cache(input_dir=f"{folder}/{name}", chunk_size=100)
    for number in range(PICTURES):
        writer[number] = name
    writer.done()
    writer.merge()
    return f"{folder}/{name}"


def shares(folders, weights, method):
    """The share of the pictures that each collection has, and how many batches are of more than one."""
    streams = [StreamingDataset(folder) for folder in folders]
    mix = CombinedStreamingDataset(streams, weights=weights, iterate_over_all=False, batching_method=method, seed=0)
    counts, mixed = Counter(), 0
    for _, batch in zip(range(BATCHES), StreamingDataLoader(mix, batch_size=BATCH)):
        counts.update(batch.tolist())
        mixed += len(batch.unique()) > 1
    return [round(counts[name] / counts.total(), 2) for name in range(len(weights))], mixed


print("litdata", version("litdata"))
folders = [stored(sys.argv[1], name) for name in range(3)]
for weights in ([0.9, 0.1], [0.8, 0.1, 0.1]):
    for method in ("stratified", "per_stream"):
        found, mixed = shares(folders[: len(weights)], list(weights), method)
        print(f"weights {weights}, {method}: shares {found}; {mixed} of the batches are mixed")
        if method == "stratified":
            assert mixed and all(abs(share - weight) < 0.03 for share, weight in zip(found, weights, strict=True)), found
        else:
            assert not mixed and found[0] < 0.51 and (len(weights) == 3 or found == [0.5, 0.5]), found
PY
cd "$work" && OMP_NUM_THREADS=1 venv/bin/python -W ignore mix.py "$work" 2>errors.txt || { cat errors.txt; exit 1; }
