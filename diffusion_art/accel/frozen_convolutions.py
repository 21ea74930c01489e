"""Convolutions of a frozen network from timm: less is computed and copied, the answer is the same but for roundings."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from diffusion_art.accel import switch


def streamlined(net: nn.Sequential) -> nn.Sequential:
    """The network with both of what follows; as it is where fast twins are off."""
    return padded_alike(folded(net)) if switch.ON else net


def folded(net: nn.Sequential) -> nn.Sequential:
    """With every batch norm folded into the convolution before it; timm's norms hold the activation too."""
    for module in net.modules():
        children = list(module.named_children())
        for (name, conv), (after, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, norm.act)
    return net


def padded_alike(net: nn.Sequential) -> nn.Sequential:
    """With depthwise kernels of stride 2 wider by a row and a column of zeros, and pictures padded alike on all sides.

    timm copies what such a kernel sees into a picture with one pixel more after it than before, as TensorFlow pads
    sides that are even; here all are. Those are the widest maps of the network.
    """
    from timm.layers.conv2d_same import Conv2dSame

    for module in net.modules():
        for name, conv in list(module.named_children()):
            if isinstance(conv, Conv2dSame) and conv.stride == (2, 2) and conv.in_channels == conv.groups:
                setattr(module, name, _wider(conv))
    return net


def _wider(conv: Any) -> nn.Conv2d:
    side = conv.kernel_size[0]
    assert side % 2
    wider = nn.Conv2d(
        conv.in_channels, conv.out_channels, side + 1, stride=2, padding=side // 2, groups=conv.groups
    ).requires_grad_(False)
    wider.weight.copy_(F.pad(conv.weight, (1, 0, 1, 0)))
    wider.bias = conv.bias
    return wider
