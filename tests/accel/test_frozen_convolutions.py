"""A frozen network of timm's answers the same with less to compute."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from diffusion_art.accel import switch
from diffusion_art.accel.frozen_convolutions import folded, padded_alike, streamlined


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    made = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return nn.Sequential(made.conv_stem, made.bn1, *made.blocks[:3])


@pytest.mark.parametrize("twin", [folded, padded_alike, streamlined])
def test_it_answers_as_before(net, twin):
    images = torch.randn(2, 3, 64, 64)
    wanted = net(images)
    found = twin(net)(images)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def test_no_norm_and_no_wide_copy_is_left_unless_it_is_switched_off(net, monkeypatch):
    def norms_and_copies() -> tuple[int, int]:
        copies = (m for m in net.modules() if isinstance(m, Conv2dSame) and m.in_channels == m.groups)
        return sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()), sum(1 for _ in copies)

    before = norms_and_copies()
    assert min(before) > 0
    monkeypatch.setattr(switch, "ON", False)
    assert streamlined(net) is net
    assert norms_and_copies() == before
    monkeypatch.setattr(switch, "ON", True)
    streamlined(net)
    assert norms_and_copies() == (0, 0)
