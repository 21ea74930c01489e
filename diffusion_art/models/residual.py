"""diffusers' residual block and upsampling of a UNet, their weights as they are, channels last throughout.

diffusers' own block turns its input around for the shortcut while training, which costs a UNet on a CPU about a
twentieth of its step. Its own upsampling does so for batches of 64 and more, because of faults in
kernels that were repaired long ago, which gives tensors other strides there.
"""

from __future__ import annotations

import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.layout import channels_last
from diffusion_art.accel.norm import conv_group_norm, group_norm
from diffusion_art.accel.upsample import upsampled


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
        x = channels_last(x)
        scale, shift = self.time_emb_proj(F.silu(temb)).chunk(2, dim=1)
        # no name for what the first norm says, so that its memory serves what comes after the convolution
        hidden = conv_group_norm(group_norm(x, self.norm1, silu=True), self.conv1, self.norm2, scale, shift, silu=True)
        hidden = self.conv2(self.dropout(hidden))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class NormOut(nn.GroupNorm):
    """SiLU of a group norm, the last but one of a UNet's parts. Has the weights, and so the names, of `norm`."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The argument's name is torch's."""
        return group_norm(input, self, silu=True)


class Upsample(nn.Module):
    """x -> conv(every pixel of x four times). Has the part, and so the name, of `block`."""

    def __init__(self, block: Upsample2D):
        super().__init__()
        assert block.name == "conv"
        assert block.interpolate
        assert block.norm is None
        assert isinstance(block.conv, nn.Conv2d)
        assert (block.conv.kernel_size, block.conv.stride, block.conv.padding) == ((3, 3), (1, 1), (1, 1))
        self.conv = block.conv

    def forward(
        self, x: Float[Tensor, "b c h w"], output_size: tuple[int, int] | None = None
    ) -> Float[Tensor, "b d h2 w2"]:
        """`output_size` is diffusers', for sides that were odd; those are refused here."""
        assert output_size is None
        return upsampled(x, self.conv)
