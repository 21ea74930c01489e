"""Projections by one product are each projection."""

from __future__ import annotations

import torch
from torch import nn

from diffusion_art.accel import switch
from diffusion_art.accel.layers import projected


def test_projections_by_one_product_are_each_alone(monkeypatch):
    parts = [nn.Linear(16, 16, bias=False) for _ in range(3)]
    x = torch.randn(2, 5, 16)
    together = projected(x, *parts)
    monkeypatch.setattr(switch, "ON", False)
    for ours, theirs in zip(together, projected(x, *parts), strict=True):
        torch.testing.assert_close(ours, theirs)
