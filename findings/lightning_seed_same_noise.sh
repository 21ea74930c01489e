#!/usr/bin/env bash
# lightning 2.6.6, torch 2.13.0: `seed_everything(0, workers=True)`, then a Trainer with several processes (DDP). A training step of diffusion draws a
# time and noise for each picture. One would guess that Lightning, which seeds the workers of the loaders by rank, has each process draw its
# own. All processes have one random state: the pictures differ, but the k-th picture of each process gets the same time, noise and dropout at every
# step. 8 processes with 4 pictures see 4 noise levels in a step and not 32, so the gradient stays about as noisy as that of one
# process, and nothing is said. Without `seed_everything` they all differ. So a seed, which is given to make a run repeatable, changes how it trains.
# Seed again by rank when the weights are there (`on_fit_start`), or draw from a generator of one's own.
# Seen: 2 processes, 5 steps of 4 pictures: seeded 40 pictures, 20 times, 20 draws of noise; not seeded 40, 40, 40.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 lightning==2.6.6 numpy
cat >"$work/draws.py" <<'PY'
import sys

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader

if sys.argv[1] == "seeded":
    seed_everything(0, workers=True, verbose=False)


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
        self.drawn = []

    def training_step(self, x_0, batch_idx):
        t = torch.rand(len(x_0), 1)
        eps = torch.randn_like(x_0)
        self.drawn += zip(x_0.flatten().tolist(), t.flatten().tolist(), eps.flatten().tolist(), strict=True)
        return (self.net((1 - t) * x_0 + t * eps) - (eps - x_0)).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_end(self):
        every = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(every, self.drawn)
        if self.global_rank == 0:
            columns = zip(*[row for one in every for row in one], strict=True)
            print(*[len(set(column)) for column in columns], flush=True)


quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, **quiet)
trainer.fit(Net(), DataLoader(torch.arange(40.0)[:, None], batch_size=4, shuffle=True))
PY
cd "$work"
for case in "seeded:40 20 20" "free:40 40 40"; do
    said=$(OMP_NUM_THREADS=1 venv/bin/python -W ignore draws.py "${case%%:*}" 2>errors.txt) || { cat errors.txt; exit 1; }
    echo "${case%%:*}: distinct pictures, times, draws of noise of two processes: $said"
    [ "$said" = "${case#*:}" ] || { echo "it is not so any more"; exit 1; }
done
