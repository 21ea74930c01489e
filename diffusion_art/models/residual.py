"""diffusers' residual block and upsampling of a UNet, their weights as they are, channels last throughout.

diffusers' own block turns its input around for the shortcut while training, which costs a UNet on a CPU about a
twentieth of its step. Its own upsampling does so for batches of 64 and more, for the sake of kernels long mended, and
so has a network of other shapes there.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.norm import conv_group_norm, group_norm


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
        hidden = group_norm(x, self.norm1, silu=True)
        scale, shift = self.time_emb_proj(F.silu(temb)).chunk(2, dim=1)
        hidden = conv_group_norm(hidden, self.conv1, self.norm2, scale, shift, silu=True)
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
    """x -> conv(every pixel of x four times). Has the part, and so the name, of `block`.

    Of the nine pixels that a kernel sees in the doubled picture only four differ. So on a CPU a transposed convolution
    of x itself gives the same numbers, but for roundings, by four products in place of nine: the weights' tie in Odena
    et al. 2016, https://distill.pub/2016/deconv-checkerboard
    """

    LIMIT = 2**31  # numbers that CUDA's kernel for channels-last pictures can count: pytorch issue 141831
    FEW = 256  # pixels, below which adding up the kernel takes longer than it saves

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
        if self._saves(x) and not output_size:
            x = x.contiguous(memory_format=torch.channels_last)
            return F.conv_transpose2d(x, doubling_kernel(self.conv.weight), self.conv.bias, stride=2, padding=1)
        if x.device.type == "cuda" and 4 * x.numel() > self.LIMIT:
            x = x.contiguous()
        doubled = None if output_size else 2.0
        as_it_is = torch.autocast("cuda", enabled=False) if x.device.type == "cuda" else nullcontext()
        with as_it_is:  # CUDA's autocast would copy the map to float32, though nothing is computed
            x = F.interpolate(x, size=output_size, scale_factor=doubled, mode="nearest")
        return self.conv(x)

    def _saves(self, x: Tensor) -> bool:
        """Whether the transposed convolution is the faster."""
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        return x.numel() >= self.FEW * x.shape[1]


def doubling_kernel(kernel: Float[Tensor, "d c 3 3"]) -> Float[Tensor, "c d 4 4"]:
    """Of the transposed convolution, stride 2 and padding 1, that equals `kernel` over every pixel four times.

    A pixel's two copies in a row meet neighbouring taps, whose sum is what the pixel counts.
    """
    sums = kernel.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    with torch.autocast(kernel.device.type, enabled=False):  # in the weights' own precision, rounded once summed
        return torch.einsum("ya,xb,dcab->cdyx", sums, sums, kernel)
