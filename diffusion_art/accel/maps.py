"""Maps of a network: in which order their numbers lie in memory, and the same at another size.

Channels lie last throughout a UNet. Convolutions and norms are faster so, and a block that turns a map makes the next
one turn it back.

A UNet's upsampling is a convolution over every pixel four times. Of the nine pixels that a kernel sees in the doubled
picture only four differ. So on a CPU a transposed convolution of the small picture gives the same numbers, but for
roundings, by four products in place of nine: the weights' tie in Odena et al. 2016,
https://distill.pub/2016/deconv-checkerboard
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel import switch

LIMIT = 2**31  # numbers that CUDA's kernel for channels-last pictures can count: pytorch issue 141831
FEW = 256  # pixels, below which adding up the kernel takes longer than it saves


def channels_last(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return x.contiguous(memory_format=torch.channels_last)


def as_map(tokens: Float[Tensor, "b n c"], *, rows: int) -> Float[Tensor, "b c h w"]:
    """Positions as a map of so many rows. Where it computes on a GPU, channels stay last.

    On a CPU the map is turned, as diffusers' transformer does it: the numbers of old runs stay the same to the bit.
    """
    x = rearrange(tokens, "b (h w) c -> b c h w", h=rows)
    return x.contiguous() if x.device.type == "cpu" else x


def upsampled(x: Float[Tensor, "b c h w"], conv: nn.Conv2d) -> Float[Tensor, "b d h2 w2"]:
    """A convolution of 3 x 3 over x at twice its sides."""
    if not gains_transposed(x):
        return conv(doubled(x))
    x = x.contiguous(memory_format=torch.channels_last)
    return F.conv_transpose2d(x, doubling_kernel(conv.weight), conv.bias, stride=2, padding=1)


def gains_transposed(x: Tensor) -> bool:
    """Whether the transposed convolution is the faster."""
    if not switch.ON or x.device.type != "cpu" or torch.compiler.is_compiling():  # by size would fix the batch
        return False
    return x.numel() >= FEW * x.shape[1]


def doubled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Every pixel four times, in the dtype of x: CUDA's autocast would copy the map to float32, to compute nothing."""
    if x.device.type == "cuda" and 4 * x.numel() > LIMIT:
        x = x.contiguous()
    as_it_is = torch.autocast("cuda", enabled=False) if switch.ON and x.device.type == "cuda" else nullcontext()
    with as_it_is:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


def doubling_kernel(kernel: Float[Tensor, "d c 3 3"]) -> Float[Tensor, "c d 4 4"]:
    """Of the transposed convolution, stride 2 and padding 1, that equals `kernel` over every pixel four times.

    A pixel's two copies in a row meet neighbouring taps, whose sum is what the pixel counts.
    """
    sums = kernel.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    with torch.autocast(kernel.device.type, enabled=False):  # in the weights' own precision, rounded once summed
        return torch.einsum("ya,xb,dcab->cdyx", sums, sums, kernel)


def resized(x: Float[Tensor, "b d h w"], side: int) -> Float[Tensor, "b d g g"]:
    """As two products of matrices: faster than torch's own on a CPU, and their gradients are the same bits on any
    device, which those of torch's are not.
    """
    if not switch.ON:
        return resized_plainly(x, side)
    rows, columns = (_weights(n, side, x.device).to(x.dtype) for n in x.shape[2:])
    return rows @ x @ columns.T


def resized_plainly(x: Float[Tensor, "b d h w"], side: int) -> Float[Tensor, "b d g g"]:
    return F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)


def _weights(n: int, side: int, device: torch.device) -> Float[Tensor, "g n"]:
    """What each of `side` positions takes from each of `n`."""
    one_hot = torch.eye(n, device=device)[None, None]
    return F.interpolate(one_hot, size=(side, n), mode="bilinear", antialias=True)[0, 0]
