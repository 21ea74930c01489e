"""Upsampling by a transposed convolution says what interpolation and convolution say, for less."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion_art.accel import switch
from diffusion_art.accel.layers import upsampled


def answers(x: torch.Tensor, conv: nn.Conv2d) -> list[torch.Tensor]:
    """The answer and all gradients."""
    x = x.clone().requires_grad_()
    conv.zero_grad()
    y = upsampled(x, conv)
    y.square().sum().backward()
    return [y, x.grad, conv.weight.grad, conv.bias.grad]  # type: ignore[list-item]


@pytest.mark.parametrize("rows", [64, 8])
def test_it_is_the_plain_twin_forwards_and_backwards(rows, monkeypatch):
    conv, x = nn.Conv2d(4, 6, 3, padding=1).double(), torch.randn(rows, 4, 6, 7).double()
    fast = answers(x, conv)
    monkeypatch.setattr(switch, "ON", False)
    for ours, theirs in zip(fast, answers(x, conv), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_it_takes_four_products_for_nine(monkeypatch):
    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            upsampled(torch.randn(8, 4, 8, 8), nn.Conv2d(4, 4, 3, padding=1))
        return counter.get_total_flops()

    fast = flops()
    monkeypatch.setattr(switch, "ON", False)
    assert 2 * fast < flops()  # the kernel's sums among them
