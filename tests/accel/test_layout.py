"""On CUDA no map inside a network is turned around or cast: asked of every operation of a step on a fake device."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.accel import switch
from diffusion_art.models.jit import JiT
from diffusion_art.models.unet import UNet
from tests.accel.fake_cuda import Watch, fake_cuda, step
from tests.waiting import on_fake_cuda

ROWS, SIDE, CHANNELS, WIDTH = 4, 16, 12, 32
SIZES = {"channels": CHANNELS, "sample_size": SIDE, "cross_attention_dim": WIDTH, "pooled_dim": WIDTH}
LEAST = ROWS * 8 * 8 * 16  # numbers in the smallest map of the UNet below


def seen(make, **settings) -> Watch:
    with torch.device("meta"):
        net = make(**SIZES, **settings).train()
    with fake_cuda():
        return step(on_fake_cuda(net), rows=ROWS, side=SIDE, channels=CHANNELS, width=WIDTH)


def unet(**changes) -> Watch:
    """Two levels, attention at both, as in the network for WikiArt at its lower two."""
    settings = {"block_channels": [16, 32], "layers_per_block": 2, "attention_sides": [16, 8], "head_channels": 8}
    return seen(UNet, norm_groups=4, **(settings | changes))


def test_only_the_latents_are_turned_and_cast_as_they_come_in_and_go_out():
    watch = unet()
    latents = (ROWS, CHANNELS, SIDE, SIDE)
    assert watch.turned() == [latents]
    assert set(watch.cast(rows=ROWS, at_least=LEAST)) == {latents}
    assert watch.count("native_group_norm") == watch.count("native_group_norm_backward") == 0
    assert watch.count("group_norm") == watch.count("group_norm_backward") == 12 * 2 + 11 + 1


def test_switched_off_it_is_what_it_was(monkeypatch):
    monkeypatch.setattr(switch, "ACCELERATES", False)
    watch = unet()
    assert watch.count("group_norm") == 0
    assert watch.count("native_group_norm") == 12 * 2 + 11 + 1
    assert len(watch.cast(rows=ROWS, at_least=LEAST)) > 50


def test_the_transformers_norms_take_tokens_as_they_come():
    watch = seen(JiT, patch_size=2, width=32, depth=2, head_channels=16, bottleneck=8)
    assert not [shape for shape in watch.cast(rows=ROWS, at_least=ROWS * 64 * 32) if shape[-1] == 32]


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_the_kinds_of_blocks_to_compile_are_there(gradient_checkpointing):
    net = UNet(
        **SIZES, block_channels=[8, 16], attention_sides=[8], head_channels=8, norm_groups=4,
        gradient_checkpointing=gradient_checkpointing,
    )  # fmt: skip
    assert all(any(type(block) is kind for block in net.modules()) for kind in net.regions)
