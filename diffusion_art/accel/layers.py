"""Layers of a network, each in the way that its device computes it fastest: attention, maps, norms.

**Attention** goes by the formula where positions are few and the device is a CPU, else by torch's fused kernel:

    softmax(q k^T / sqrt(d) + bias) v

There the formula trains 2 to 5 times as fast as the kernel, the more so the wider the head. The linear maps before it
are one product of matrices.

**Maps** have their channels last throughout a UNet. Convolutions and norms are faster so, and a block that turns a map
makes the next one turn it back. A UNet's upsampling is a convolution over every pixel four times. Of the nine pixels
that a kernel sees in the doubled picture only four differ. So on a CPU a transposed convolution of the small picture
gives the same numbers, but for roundings, by four products in place of nine: the weights' tie in Odena et al. 2016,
https://distill.pub/2016/deconv-checkerboard

**Norms** of maps are computed with what is done to their answer, those of tokens in the precision that they come in:

    y = act((x + offset) normed * (1 + scale) + shift)

Under autocast CUDA's own group norm wants float32 and NCHW, so that each norm of a channels-last bfloat16 map turns it
around and back, in three passes over the map. The fast twin (`norm_operators.py`) reads and writes the map as it is, in
one. CUDA's layer norm and RMS norm want float32 there too: each norm of bfloat16 tokens is a copy, a norm of twice the
bytes and a copy back. Their kernels take bfloat16 as well, and sum in float32 all the same.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion_art.accel import switch
from diffusion_art.accel.norm_operators import fast_group_norm

FEW_QUERIES = 256  # of a picture, up to which the formula is faster
FEW_JOINT = 512  # the same where a caption's tokens stand among them
LIMIT = 2**31  # numbers that CUDA's kernel for channels-last pictures can count: pytorch issue 141831
FEW_PIXELS = 256  # below which adding up the kernel of an upsampling takes longer than it saves
MAPS = (torch.bfloat16, torch.float16, torch.float32)  # dtypes of maps that the fast group norm takes
LOW = (torch.bfloat16, torch.float16)  # of tokens


def attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h l d"],
    v: Float[Tensor, "b h l d"],
    bias: Float[Tensor, "b 1 1 l"] | None,
    *,
    few: int | None = None,
) -> Float[Tensor, "b h n d"]:
    """The bias is added to the logits. `few` queries are FEW_QUERIES if not given."""
    if switch.ON and q.device.type == "cpu" and q.shape[2] <= (FEW_QUERIES if few is None else few):
        return by_formula(q, k, v, bias)
    return plain_attention(q, k, v, bias)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """By torch's fused kernel."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def by_formula(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    b, h, _, d = q.shape
    start = q.new_zeros(1, 1, 1) if bias is None else bias.expand(b, h, 1, -1).flatten(0, 1)
    logits = torch.baddbmm(start, q.flatten(0, 1), k.flatten(0, 1).mT, beta=float(bias is not None), alpha=d**-0.5)
    return torch.bmm(logits.softmax(-1), v.flatten(0, 1)).unflatten(0, (b, h))


class Attend(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v, as a part without weights: a hook on it sees what attends to what.

    `few` is that of `attention`.
    """

    def __init__(self, *, few: int | None = None):
        super().__init__()
        self.few = few

    def forward(
        self,
        q: Float[Tensor, "b h n d"],
        k: Float[Tensor, "b h l d"],
        v: Float[Tensor, "b h l d"],
        bias: Float[Tensor, "b 1 1 l"] | None,
    ) -> Float[Tensor, "b h n d"]:
        return attention(q, k, v, bias, few=self.few)


def few_tokens(device: torch.device) -> AbstractContextManager[Any]:
    """Within it torch's own attention layers go by the formula on a CPU: for few tokens about twice as fast as its
    fused kernel, backward included.
    """
    return sdpa_kernel(SDPBackend.MATH) if switch.ON and device.type == "cpu" else nullcontext()


def projected(x: Float[Tensor, "b n c"], *projections: nn.Linear) -> tuple[Float[Tensor, "b n _"], ...]:
    """Each projection of x, all of one width and without bias, by one product."""
    if not switch.ON:
        return tuple(part(x) for part in projections)
    assert all(part.bias is None for part in projections)
    return F.linear(x, torch.cat([part.weight for part in projections])).chunk(len(projections), dim=-1)


# ---------------------------------------------------------------------- maps


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
    return x.numel() >= FEW_PIXELS * x.shape[1]


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


# ---------------------------------------------------------------------- norms


def group_norm(
    x: Float[Tensor, "b c h w"],
    norm: nn.GroupNorm,
    scale: Float[Tensor, "b c"] | None = None,
    shift: Float[Tensor, "b c"] | None = None,
    *,
    silu: bool = False,
) -> Float[Tensor, "b c h w"]:
    """`norm` of x, times 1 + scale, plus shift, through SiLU. On CUDA the answer has the dtype of a channels-last x."""
    if not is_fast(x, norm):
        return plain_group_norm(x, norm, scale, shift, silu=silu)
    return fast_group_norm(x, norm, scale, shift, silu=silu)


def conv_group_norm(
    x: Float[Tensor, "b k h w"],
    conv: nn.Conv2d,
    norm: nn.GroupNorm,
    scale: Float[Tensor, "b c"] | None = None,
    shift: Float[Tensor, "b c"] | None = None,
    *,
    silu: bool = False,
) -> Float[Tensor, "b c h w"]:
    """`group_norm` of a convolution, whose bias the fast twin adds within the norm: a pass over the map less."""
    if not is_fast(x, norm) or conv.bias is None:
        return group_norm(conv(x), norm, scale, shift, silu=silu)
    assert conv.padding_mode == "zeros"
    assert not isinstance(conv.padding, str)
    seen = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    return fast_group_norm(seen, norm, scale, shift, silu=silu, offset=conv.bias)


def is_fast(x: Tensor, norm: nn.GroupNorm) -> bool:
    """Whether the fast twin takes it: a channels-last map on CUDA, and a norm with weights."""
    return (
        x.device.type == "cuda"
        and switch.ACCELERATES
        and x.dtype in MAPS
        and norm.weight is not None
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def plain_group_norm(
    x: Float[Tensor, "b c h w"],
    norm: nn.GroupNorm,
    scale: Float[Tensor, "b c"] | None = None,
    shift: Float[Tensor, "b c"] | None = None,
    *,
    silu: bool = False,
    offset: Float[Tensor, " c"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """The same by PyTorch, on any device."""
    x = x if offset is None else x + offset[:, None, None]
    y = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    alike = all(each.dtype == y.dtype for each in (scale, shift) if each is not None)
    in_place = alike and not torch.is_grad_enabled()  # the same numbers, and no further map of that size to write
    if scale is not None:
        factor = 1 + scale[:, :, None, None]
        y = y.mul_(factor) if in_place else y * factor
    if shift is not None:
        term = shift[:, :, None, None]
        y = y.add_(term) if in_place else y + term
    return F.silu(y, inplace=in_place) if silu else y


class TokenNorm(nn.LayerNorm):
    """`norm`, a layer norm with its weights, answering in the dtype of its input where that is fast."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(list(norm.normalized_shape), norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, input: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The argument's name is torch's."""
        if not takes_as_it_is(input):
            return super().forward(input)
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        with torch.autocast(input.device.type, enabled=False):
            return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class NormOut(nn.GroupNorm):
    """SiLU of a group norm, the last but one of a UNet's parts. Has the weights, and so the names, of `norm`."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The argument's name is torch's."""
        return group_norm(input, self, silu=True)


def rms_norm(x: Float[Tensor, "*b d"], *, eps: float) -> Float[Tensor, "*b d"]:
    """x over its root mean square along the last axis, without weights."""
    if not takes_as_it_is(x):
        return F.rms_norm(x, x.shape[-1:], eps=eps)
    with torch.autocast(x.device.type, enabled=False):
        return F.rms_norm(x, x.shape[-1:], eps=eps)


def takes_as_it_is(x: Tensor) -> bool:
    """Whether autocast would bring tokens to float32 that CUDA's kernels take as they are."""
    return (
        x.device.type == "cuda" and switch.ACCELERATES and x.dtype in LOW and torch.is_autocast_enabled(x.device.type)
    )
