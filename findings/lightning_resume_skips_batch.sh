#!/usr/bin/env bash
# lightning 2.6.6, torchdata 0.11.0, torch 2.13.0: `StatefulDataLoader` counts what it has handed out, and Lightning saves its state with each
# checkpoint, so that a run goes on in mid-epoch. One would guess that it goes on at the batch after the last one trained on. It
# does for a data set with a length. For a stream, which has none, Lightning asks for a batch ahead, to know whether the current one is the
# last; the state that is saved counts that batch as handed out, and the resumed run begins after it. So each resume loses a batch for each
# process, and the run sees other data than one that was not stopped. Nothing is said. The loader alone resumes exactly.
# A `__len__` on the stream's data set, or a position that the training counts itself, repairs it.
# Seen: after 3 batches of 6, of a stream: the next one starts at sample 16; with a length, and without Lightning: at 12.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 lightning==2.6.6 torchdata==0.11.0 numpy
cd "$work"
venv/bin/python -W ignore - <<'PY'
import logging

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Stream(IterableDataset):
    """24 samples in a fixed order, which goes on where its state says."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        while self.at < 24:
            self.at += 1
            yield torch.tensor([float(self.at - 1)])
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(int(batch[0]))
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def by_lightning(data, resume_from=None, **until):
    saver = ModelCheckpoint(dirpath="saved", filename=type(data).__name__, every_n_train_steps=3, save_top_k=-1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    net = Net()
    Trainer(accelerator="cpu", max_epochs=1, callbacks=[saver], **until, **quiet).fit(
        net, StatefulDataLoader(data, batch_size=4), ckpt_path=resume_from
    )
    return net.seen


def by_hand(make):
    loader, batches = StatefulDataLoader(make(), batch_size=4), []
    for batch in loader:
        batches.append(int(batch[0]))
        if len(batches) == 3:
            state = loader.state_dict()
            break
    again = StatefulDataLoader(make(), batch_size=4)
    again.load_state_dict(state)
    return [int(batch[0]) for batch in again]


def sized():
    return torch.arange(24.0)[:, None]


rest = {"by hand, a stream": by_hand(Stream)}
for name, make in (("Lightning, a stream", Stream), ("Lightning, with a length", sized)):
    assert by_lightning(make(), max_steps=3) == [0, 4, 8]
    rest[name] = by_lightning(make(), resume_from=f"saved/{type(make()).__name__}.ckpt")
for name, batches in rest.items():
    print(f"{name}: after the batches at 0, 4 and 8 the resumed run reads those at {batches}")
assert rest["by hand, a stream"] == rest["Lightning, with a length"] == [12, 16, 20], rest
assert rest["Lightning, a stream"] == [16, 20], rest
PY
