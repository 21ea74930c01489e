"""Every kind of backbone, small, and what to ask it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch

from diffusion_art.models.backbone import Backbone
from diffusion_art.models.jit import JiT
from diffusion_art.models.unet import UNet
from diffusion_art.tensors import Conditioning

Net = TypeVar("Net", bound=Backbone)
SIZES = {"channels": 4, "sample_size": 8, "cross_attention_dim": 16, "pooled_dim": 12}
small_unet = partial(UNet, **SIZES, block_channels=[8, 16], attention_sides=[4], head_channels=8, norm_groups=4)
small_jit = partial(JiT, **SIZES, patch_size=2, width=32, depth=3, head_channels=16, bottleneck=8)


def fused_unet(**changes: Any) -> UNet:
    """One that attends by the fused kernel, as it does with more than 256 positions or on a GPU."""
    return small_unet(**({"sample_size": 24, "attention_sides": [24]} | changes))


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "unet": small_unet,
    "unet_fused_attention": fused_unet,
    "jit": small_jit,
}


def inputs(rows: int = 3, *, tokens: int = 8, side: int = 8) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    """x_t, t, cond."""
    randn = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    cond = Conditioning(randn(rows, tokens, 16), torch.ones(rows, tokens, dtype=torch.bool), randn(rows, 12))
    return randn(rows, 4, side, side), torch.linspace(0.1, 0.9, rows), cond


def all_random(net: Net) -> Net:
    """No weight is zero any more, as after some training."""
    torch.manual_seed(0)
    for weight in net.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.2)
    return net.eval()
