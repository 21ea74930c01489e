#!/usr/bin/env bash
# accelerate 1.15.0, torch 2.13.0: a batch sampler puts pictures of one shape into a batch (aspect-ratio buckets), and `Accelerator.prepare`
# deals its batches out to the processes. One would guess that each batch goes to one process, and that those which a bucket does not fill
# are at most padded. With several processes, a round is dealt only if the batch of its last process is full: a bucket's short last batch in that
# place takes the whole round with it, full batches too, and nothing is said. The batches are fixed by the buckets, so where their
# order is fixed too, these pictures are never trained on. Here 8 buckets have 23 pictures each on average, and an eighth is lost.
# With the sampler's `batch_size = None` and `even_batches=False` all are dealt out.
# Seen: of 184 pictures two processes read 162, four 161; one process, and two with `batch_size = None`, all 184.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 accelerate==1.15.0 numpy
cat >"$work/deal.py" <<'PY'
import os
import random

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader, Sampler

IN_BUCKETS = (37, 9, 22, 14, 31, 26, 18, 27)  # pictures of each shape


class Buckets(Sampler):
    """Batches of up to 4 pictures of one shape, in a random order."""

    drop_last = False

    def __init__(self, batch_size):
        self.batch_size = batch_size
        self.batches = []
        for bucket, count in enumerate(IN_BUCKETS):
            first = sum(IN_BUCKETS[:bucket])
            self.batches += [list(range(at, min(at + 4, first + count))) for at in range(first, first + count, 4)]
        random.Random(0).shuffle(self.batches)

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


told = os.environ["TOLD"] == "yes"
config = DataLoaderConfiguration(even_batches=told)
accelerator = Accelerator(cpu=True, dataloader_config=config)
loader = accelerator.prepare(DataLoader(torch.arange(sum(IN_BUCKETS)), batch_sampler=Buckets(4 if told else None)))
read = [int(picture) for batch in loader for picture in batch]
every = [None] * accelerator.num_processes
if accelerator.num_processes > 1:
    torch.distributed.all_gather_object(every, read)
else:
    every = [read]
if accelerator.is_main_process:
    print(len({picture for one in every for picture in one}), flush=True)
accelerator.end_training()
PY
cd "$work"
export OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true
for case in "1 yes 184" "2 yes 162" "4 yes 161" "2 no 184"; do
    set -- $case
    count=$(TOLD=$2 venv/bin/python -W ignore -m torch.distributed.run --standalone --nproc-per-node "$1" deal.py 2>errors.txt) || { cat errors.txt; exit 1; }
    echo "processes $1, the sampler says its batch size: $2: $count of 184 pictures are read"
    [ "$count" = "$3" ] || { echo "it is not so any more"; exit 1; }
done
