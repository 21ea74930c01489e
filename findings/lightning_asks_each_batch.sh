#!/usr/bin/env bash
# lightning 2.6.6, torch 2.13.0: with several processes, one would guess that a training step of DDP has them wait for one another
# once, for the gradients, and that a host of a GPU queues the next step meanwhile. Before each batch Lightning also makes a tensor
# on the device, broadcasts it from process 0 and reads it, to ask whether process 0 has had a SIGTERM: the host waits for all work
# queued on its device, and the processes wait for one another. No setting turns it off, and a handler of one's own for SIGTERM
# does not either. Counted here with two processes on a CPU: as many broadcasts as batches.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 lightning==2.6.6
cat >"$work/count.py" <<'PY'
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

BATCHES = 7


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.net(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_train_start(self):
        self.counts = {"broadcast": 0, "read": 0}
        broadcast, item = torch.distributed.broadcast, torch.Tensor.item

        def counted(name, function):
            def call(*args, **kwargs):
                self.counts[name] += 1
                return function(*args, **kwargs)

            return call

        torch.distributed.broadcast = counted("broadcast", broadcast)
        torch.Tensor.item = counted("read", item)

    def on_train_end(self):
        if self.global_rank == 0:
            print(f"{BATCHES} batches:", self.counts, flush=True)
        assert self.counts == {"broadcast": BATCHES, "read": BATCHES}, self.counts


quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", max_steps=BATCHES, **quiet)
trainer.fit(Net(), DataLoader(torch.ones(64, 2), batch_size=4))
PY
cd "$work" && OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore count.py 2>&1 | grep -v "^INFO\|GLOBAL_RANK\|^-\|^distributed\|^All\|^$\|^GPU\|^TPU\|Tip\|max_steps"
