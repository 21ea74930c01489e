"""The guard as on a CUDA device: checked there, read later. By the same code on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from diffusion_art.callbacks.guard import NonFiniteGuard, Verdicts
from diffusion_art.errors import UserError
from diffusion_art.tensors import Batch
from diffusion_art.training.optim import build_optimizer, scale_in_step
from tests.conftest import ROOT


def _batch(number: int) -> Batch:
    return Batch(torch.zeros(1, 3, 2, 2), ["a"], [f"key {number}"], [number], number + 1)


def _run(losses: list[float], gradients: list[float], *, latest: int) -> tuple[Any, list[torch.Tensor], int]:
    """Steps of fused AdamW; what was found broken, the weights after each step, and after how many it was."""
    net = nn.Linear(3, 2)
    optimizer = build_optimizer(partial(torch.optim.AdamW, lr=0.1, fused=True), net)
    verdicts, ends = Verdicts(torch.device("cpu")), []
    for step, (loss, gradient) in enumerate(zip(losses, gradients, strict=True)):
        verdicts.check(torch.tensor(loss))
        verdicts.hold_back(optimizer)
        for p in net.parameters():
            p.grad = torch.full_like(p, gradient)
        scale_in_step(optimizer, net.parameters(), 1.0)
        optimizer.step()
        verdicts.send(_batch(step), step)
        ends.append(net.weight.detach().clone())
        if len(ends) > latest and (broken := verdicts.broken(latest=0)):
            return broken, ends, len(ends)
    return verdicts.broken(latest=0), ends, len(ends)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_from_the_first_broken_loss_on_no_step_reaches_the_weights(wrong):
    broken, ends, count = _run([1.0, 1.0, wrong, 1.0, 1.0], [1.0] * 5, latest=4)
    assert (broken.step, broken.batch.keys, count) == (2, ["key 2"], 5)
    assert broken.what == f"the loss became {wrong}"
    assert not torch.equal(ends[0], ends[1])
    assert all(torch.equal(ends[1], later) for later in ends[2:])


def test_gradients_that_are_not_finite_are_found_though_the_loss_is():
    broken, ends, _ = _run([1.0, 0.5, 1.0], [1.0, float("inf"), 1.0], latest=2)
    assert (broken.step, broken.what) == (1, "the gradients of a loss of 0.5 were not finite")
    assert torch.equal(ends[0], ends[2])


def test_a_sound_run_is_left_alone():
    broken, ends, _ = _run([1.0, 0.5], [1.0, 1.0], latest=2)
    assert broken is None
    assert not torch.equal(ends[0], ends[1])


def test_verdicts_that_have_not_arrived_are_not_waited_for_until_they_are_old(monkeypatch):
    verdicts = Verdicts(torch.device("cpu"))
    monkeypatch.setattr("diffusion_art.tensors.Reading.ready", False)
    for step in range(3):
        verdicts.check(torch.tensor(1.0 if step else float("nan")))
        verdicts.send(_batch(step), step)
        assert (verdicts.broken(latest=2) is None) == (step < 2)
    assert verdicts.broken(latest=0).step == 1


def test_no_checkpoint_is_written_of_a_run_that_is_broken(tmp_path):
    guard = NonFiniteGuard(folder=str(tmp_path / "run"))
    guard.verdicts = Verdicts(torch.device("cpu"))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer, module = Trainer(accelerator="cpu", max_steps=1, **quiet), LightningModule()
    guard.on_save_checkpoint(trainer, module, {})
    guard.verdicts.check(torch.tensor(float("nan")))
    guard.verdicts.send(_batch(3), 7)
    with pytest.raises(UserError, match=r"the loss became nan at step 7, on a batch with the pictures key 3, \.\.\. "):
        guard.on_save_checkpoint(trainer, module, {})
    assert json.loads((tmp_path / "run" / "non_finite.json").read_text()) == {
        "step": 7,
        "loss": "nan",
        "keys": ["key 3"],
        "positions": [3],
    }


@pytest.mark.slow
def test_of_two_processes_both_end_at_the_step_that_one_of_them_broke(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("two_guards.py")), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr
    said = sorted(path.read_text().partition(", on a batch")[0] for path in tmp_path.glob("said_*"))
    assert said == [
        "the loss became nan at step 2",
        "the loss or the gradients of another process were not finite at step 2",
    ]
    assert {path.name for path in tmp_path.glob("*.json")} == {"non_finite.json", "non_finite_1.json"}
