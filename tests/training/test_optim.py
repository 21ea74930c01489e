"""Learning-rate schedules by their numbers, and who is spared weight decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion_art.training.optim import Constant, Cosine, Plateau, attach, build_optimizer


def test_constant_warms_up_linearly_and_stays():
    schedule = Constant(warmup_steps=4)
    assert [schedule(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_cosine_passes_its_landmarks():
    schedule = Cosine(total_steps=110, warmup_steps=10, floor=0.1)
    assert schedule(10) == pytest.approx(1.0)
    assert schedule(60) == pytest.approx(0.55)
    assert schedule(110) == pytest.approx(0.1)
    assert schedule(500) == pytest.approx(0.1)


def test_plateau_agrees_with_torch():
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    ours = Plateau(patience=2, factor=0.5)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, factor=0.5)
    for loss in losses:
        ours.observe(loss)
        theirs.step(loss)
        assert ours(10_000) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.scale < 1.0


def test_plateau_memory_is_saved_with_the_scheduler():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    first = Plateau(patience=0, factor=0.5)
    for loss in (1.0, 2.0, 2.0):
        first.observe(loss)
    state = attach(first, optimizer).state_dict()
    second = Plateau(patience=0, factor=0.5)
    attach(second, optimizer).load_state_dict(state)
    assert (second.scale, second.best) == (0.25, 1.0)


def test_weight_decay_spares_vectors_and_frozen_weights_are_left_out():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 4))
    net[2].requires_grad_(False)
    optimizer = build_optimizer(torch.optim.AdamW, net, weight_decay=0.1)
    decayed, spared = optimizer.param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3)]
    assert decayed["weight_decay"] == 0.1
    assert len(spared["params"]) == 3
    assert spared["weight_decay"] == 0.0
