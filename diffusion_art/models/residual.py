"""diffusers' residual block of a UNet, its weights as they are, in fewer passes over memory.

Group norm, the time's scale and shift, and SiLU are one function of each channel's sums over positions:

    y = silu(A x + B),   A = r W,   B = V - m A,   W = (1 + scale) w,   V = (1 + scale) b + shift

with mean m and r = 1 / std over each group. Backward, with z = A x + B, x^ = r (x - m) and N numbers in a group:

    dV = sum dz,   dW = sum dz x^,   dx = A dz - r (sum_group W dV + x^ sum_group W dW) / N

Paper: Wu & He 2018, Group Normalization, https://arxiv.org/abs/1803.08494
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PART = 2**18  # numbers, 1 MiB in float32: a core's second-level cache


class ResidualBlock(nn.Module):
    """x -> shortcut(x) + conv2(norm2_silu(conv1(norm1_silu(x)), time)), with the parts, and so the names, of `block`.

    Keeps channels-last throughout, where diffusers' own turns its input around for the shortcut while training.
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
        hidden = self.conv1(norm_silu(x, self.norm1))
        scale, shift = self.time_emb_proj(F.silu(temb)).chunk(2, dim=1)
        hidden = self.conv2(self.dropout(norm_silu(hidden, self.norm2, scale, shift)))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


def norm_silu(
    x: Float[Tensor, "b c h w"],
    norm: nn.GroupNorm,
    scale: Float[Tensor, "b c"] | None = None,
    shift: Float[Tensor, "b c"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """silu(norm(x) (1 + scale) + shift)."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _NormSilu.apply(x, norm.weight, norm.bias, scale, shift, norm.num_groups, norm.eps)
    hidden = norm(x)
    if scale is not None and shift is not None:
        hidden = hidden * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return F.silu(hidden)


class _NormSilu(torch.autograd.Function):
    """On a CPU: sums and products in float32 over [b, hw, c], a few images at a time so that they stay in its cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, scale: Any, shift: Any, groups: int, eps: float):
        y, rows = torch.empty_like(x), _rows(x)
        gain = (1 + scale.float()) if scale is not None else torch.ones(len(x), 1, device=x.device)
        w, v = weight * gain, bias * gain
        if shift is not None:
            v = v + shift
        repeats, count = w.shape[1] // groups, rows.shape[1] * (w.shape[1] // groups)
        kept = torch.empty(4, *w.shape, device=x.device)
        for part in _parts(rows):
            chunk = rows[part].float()
            sums, squares = chunk.sum(1), torch.mul(chunk, chunk).sum(1)
            mean, square = torch.stack([sums, squares]).unflatten(-1, (groups, repeats)).sum(-1).div_(count)
            r = torch.rsqrt_((square - mean * mean).clamp_(min=0).add_(eps))
            mean, r = torch.stack([mean, r]).repeat_interleave(repeats, dim=-1)
            a = r * w[part]
            b = v[part] - mean * a
            kept[:, part] = torch.stack([mean, r, a, b])
            _rows(y)[part] = F.silu(torch.addcmul(b[:, None], chunk, a[:, None]), inplace=True)
        ctx.save_for_backward(x, weight, bias, gain, w, kept)
        ctx.groups, ctx.scale_dtype = groups, None if scale is None else scale.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias, gain, w, (mean, r, a, b) = ctx.saved_tensors
        dx, rows, dy = torch.empty_like(x), _rows(x), _rows(gradients[0])
        dw, dv = torch.empty_like(w), torch.empty_like(w)
        repeats, count = w.shape[1] // ctx.groups, rows.shape[1] * (w.shape[1] // ctx.groups)
        for part in _parts(rows):
            chunk = rows[part].float()
            z = torch.addcmul(b[part, None], chunk, a[part, None])
            dz = torch.ops.aten.silu_backward(dy[part].float(), z)
            dv[part] = dz.sum(1)
            dw[part] = r[part] * (torch.mul(dz, chunk, out=z).sum(1) - mean[part] * dv[part])
            both = torch.stack([dv[part], dw[part]]).mul_(w[part]).unflatten(-1, (ctx.groups, repeats)).sum(-1)
            level, along = both.div_(count).repeat_interleave(repeats, dim=-1)
            slope = -r[part].square() * along
            offset = -r[part] * level - mean[part] * slope
            torch.addcmul(offset[:, None], chunk, slope[:, None], out=z)
            _rows(dx)[part] = z.addcmul_(dz, a[part, None])
        d_weight, d_bias = (dw * gain).sum(0), (dv * gain).sum(0)
        if ctx.scale_dtype is None:
            return dx, d_weight, d_bias, None, None, None, None
        d_scale = (dw * weight + dv * bias).to(ctx.scale_dtype)
        return dx, d_weight, d_bias, d_scale, dv.to(ctx.scale_dtype), None, None


def _parts(rows: Float[Tensor, "b n c"]) -> Iterator[slice]:
    """Slices of the batch of about PART float32 numbers each."""
    step = max(1, PART // rows[0].numel())
    return (slice(start, start + step) for start in range(0, len(rows), step))


def _rows(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    return x.permute(0, 2, 3, 1).flatten(1, 2)
