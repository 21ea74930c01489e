#!/usr/bin/env bash
# datasets 5.2.0, torch 2.13.0: of a data set that is streamed, `take(100)` is the usual way to hold pictures out for validation and `skip(100)` to train on the
# rest. One would guess that the two have no picture in common. That holds only if both are read by equally many workers and processes. With workers, the
# 100 are divided: each of 4 takes, or skips, the first 25 of its own shards. So a validation in the main process, as in most scripts, reads the first 100
# of the first shard, and a training with 4 workers skips 25 of them and 75 others. 75 of the 100 held-out pictures are trained on, and nothing is said: the
# validation loss is too good. `split_dataset_by_node` does the same: a training on 4 processes, validated on the first alone, shares 75.
# Hold out whole shards (by `data_files`), or filter by a key or its hash: then it does not matter who reads.
# Seen: held-out pictures that are trained on, of 100: with 0, 2, 4, 8 workers 0, 50, 75, 87; on 4 processes 75; both with 4 workers, and by key: 0.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 datasets==5.2.0 numpy
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
"$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

HELD_OUT = 100


def art():
    """1,000 pictures, told by number, in 8 shards."""
    return Dataset.from_dict({"picture": range(1_000)}).to_iterable_dataset(num_shards=8)


def read(data, workers):
    return {int(row["picture"]) for row in DataLoader(data, batch_size=None, num_workers=workers)}


print("datasets", version("datasets"), "torch", version("torch"))
held_out = read(art().take(HELD_OUT), workers=0)
assert held_out == set(range(HELD_OUT))
shared = {}
for workers in (0, 2, 4, 8):
    trained = read(art().skip(HELD_OUT), workers)
    assert len(trained) == 900
    shared[f"{workers} workers"] = len(held_out & trained)
trained = {row["picture"] for rank in range(4) for row in split_dataset_by_node(art().skip(HELD_OUT), rank, 4)}
shared["4 processes"] = len(held_out & trained)
shared["both with 4 workers"] = len(read(art().take(HELD_OUT), 4) & read(art().skip(HELD_OUT), 4))
by_key = [art().filter(lambda row, last=last: (row["picture"] % 10 == 0) == last) for last in (True, False)]
shared["4 workers, by key"] = len(read(by_key[0], 0) & read(by_key[1], 4))
for name, count in shared.items():
    print(f"training with {name}: {count} of the {HELD_OUT} held-out pictures are trained on")
assert list(shared.values()) == [0, 50, 75, 87, 75, 0, 0], shared
PY
