"""Every experiment, and every choice of the shelves beneath them, trains on a GPU: on one that computes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from diffusion_art.checkpoints import find_checkpoint, load_text_to_image, read_checkpoint
from diffusion_art.record import KEY
from tests.devices.fake_gpu import FakeGpu
from tests.devices.runs import choices, fit

GROUPS = ("model/backbone", "model/codec", "model/prediction", "model/schedule", "model/text_encoder")
SHELVES = {
    group: choices(group) for group in (*GROUPS, "objective", "noise", "alignment", "perceptual", "optim", "ema")
}
for others in ("distillation", "reconstruction", "contrastive"):  # those of a student, an autoencoder and a CLIP
    SHELVES["objective"].remove(others)
BESIDE = {"model/prediction=epsilon": {"model/schedule": "linear_beta"}}  # what a choice cannot do without


def mixed_shelves() -> list[list[str]]:
    """As few lists of overrides as name every choice of every shelf."""
    mixed = []
    for row in range(max(map(len, SHELVES.values()))):
        chosen = {group: names[row % len(names)] for group, names in SHELVES.items()}
        for group, name in list(chosen.items()):
            chosen |= BESIDE.get(f"{group}={name}", {})
        mixed.append([f"{group}={name}" for group, name in chosen.items()])
    return mixed


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_trains_and_validates(name, runs, gpu):
    module, trainer = fit(runs.settings(f"+experiment={name}", name=name))
    assert trainer.global_step == 1
    assert trainer.strategy.root_device == torch.device("cuda", 0)
    assert {"train/loss", "train/grad_norm", "val/loss"} <= trainer.callback_metrics.keys()
    assert module.ema.updates == 1


@pytest.mark.parametrize("chosen", mixed_shelves(), ids=lambda chosen: chosen[0].partition("=")[2])
def test_every_choice_of_every_shelf_trains(chosen, runs, gpu):
    _, trainer = fit(runs.settings(*chosen, name=chosen[0].replace("/", "-"), validate=False))
    assert trainer.global_step == 1


def test_the_mixed_shelves_hold_every_choice():
    held = {override for mixed in mixed_shelves() for override in mixed}
    assert held == {f"{group}={name}" for group, names in SHELVES.items() for name in names}


class Listener(Callback):
    """What is read from the device between the start and the end of each step."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.waits: list[list[str]] = []

    def on_train_batch_start(self, *what: Any) -> None:
        self._before = len(self.gpu.waits)

    def on_train_batch_end(self, *what: Any) -> None:
        self.waits.append(self.gpu.waits[self._before :])


@pytest.mark.parametrize("optim", choices("optim"))
def test_a_step_reads_nothing_from_the_device(optim, runs, gpu):
    """Or the host would wait in each step for all that it has queued; the guard's reading is its own affair."""
    listener = Listener(gpu)
    overrides = [f"optim={optim}", "callbacks.guard=null"]
    fit(runs.settings(*overrides, name=f"quiet-{optim}", validate=False), listener)
    assert listener.waits == [[]]


def test_a_whole_run_paints_saves_and_is_resumed(runs, gpu):
    """Also Muon's state, which a checkpoint holds on the CPU."""
    settings = runs.settings("+experiment=quickstart32", name="whole", whole=True)
    fit(settings)
    folder = runs.folder / "whole"
    assert (folder / "samples" / "step_00000001.png").is_file()
    settings["trainer"]["max_steps"] = 2
    module, trainer = fit(settings, resume=find_checkpoint(folder))
    assert (trainer.global_step, module.ema.updates) == (2, 2)
    saved = read_checkpoint(find_checkpoint(folder))
    assert saved[KEY]["step"] == 2
    assert all(weight.device.type == "cpu" for weight in load_text_to_image(folder).parameters())
