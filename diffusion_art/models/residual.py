"""diffusers' residual block of a UNet, its weights as they are, channels last throughout.

diffusers' own turns its input around for the shortcut while training, which costs a UNet on a CPU about a twentieth
of its step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x -> shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x)))) (1 + scale) + shift)), the last two from the time.

    Has the parts, and so the names, of `block`.
    """

    def __init__(self, block: ResnetBlock2D):
        super().__init__()
        assert block.time_emb_proj is not None
        assert block.time_embedding_norm == "scale_shift"
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.time_emb_proj: nn.Module = block.time_emb_proj
        self.dropout = block.dropout
        self.conv_shortcut = block.conv_shortcut

    def forward(self, x: Float[Tensor, "b c h w"], temb: Float[Tensor, "b k"]) -> Float[Tensor, "b d h w"]:
        x = x.contiguous(memory_format=torch.channels_last)
        hidden = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time_emb_proj(F.silu(temb))[:, :, None, None].chunk(2, dim=1)
        hidden = F.silu(self.norm2(hidden) * (1 + scale) + shift)
        hidden = self.conv2(self.dropout(hidden))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))
