"""Norms: of a UNet's maps with what is done to their answer, and of tokens in the precision that they come in.

    y = act((x + offset) normed * (1 + scale) + shift)

Under autocast CUDA's own group norm wants float32 and NCHW, so that each norm of a channels-last bfloat16 map turns it
around and back, in three passes over the map. The fast twin (`norm_kernels.py`) reads and writes the map as it is, in
one.

CUDA's layer norm and RMS norm want float32 there too: each norm of bfloat16 tokens is a copy, a norm of twice the bytes
and a copy back. Their kernels take bfloat16 as well, and sum in float32 all the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel import switch

DTYPES = (torch.bfloat16, torch.float16, torch.float32)  # of maps
LOW = (torch.bfloat16, torch.float16)  # of tokens


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
        return plain(x, norm, scale, shift, silu=silu)
    return fast(x, norm, scale, shift, silu=silu)


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
    return fast(seen, norm, scale, shift, silu=silu, offset=conv.bias)


def is_fast(x: Tensor, norm: nn.GroupNorm) -> bool:
    """Whether the fast twin takes it: a channels-last map on CUDA, and a norm with weights."""
    return (
        x.device.type == "cuda"
        and switch.ACCELERATES
        and x.dtype in DTYPES
        and norm.weight is not None
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def plain(
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


def fast(
    x: Float[Tensor, "b c h w"],
    norm: nn.GroupNorm,
    scale: Float[Tensor, "b c"] | None = None,
    shift: Float[Tensor, "b c"] | None = None,
    *,
    silu: bool = False,
    offset: Float[Tensor, " c"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """The same by Triton, for a channels-last x; one that is not is turned. Scale and shift come together."""
    assert (scale is None) == (shift is None)
    x = x.contiguous(memory_format=torch.channels_last)
    if scale is not None and shift is not None:
        scale, shift = _rows(scale), _rows(shift)
    return _forward(x, norm.weight, norm.bias, scale, shift, offset, norm.num_groups, norm.eps, silu)[0]


def _rows(values: Tensor) -> Tensor:
    """[b c] whose rows may lie apart, each of them contiguous."""
    return values if values.stride(1) == 1 else values.contiguous()


# ---------------------------------------------------------------------- the fast twin as operators of torch


@torch.library.custom_op(
    "diffusion_art::group_norm",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, Tensor? scale, Tensor? shift, Tensor? offset, int groups, "
    "float eps, bool silu) -> (Tensor, Tensor, Tensor)",
)
def _forward(x, weight, bias, scale, shift, offset, groups, eps, silu):
    from diffusion_art.accel import norm_kernels  # Triton takes a second to import, and is not everywhere

    return norm_kernels.forward(x, weight, bias, scale, shift, offset, groups=groups, eps=eps, silu=silu)


@_forward.register_fake
def _(x, weight, bias, scale, shift, offset, groups, eps, silu):
    n, c = x.shape[:2]
    return (
        torch.empty_like(x, memory_format=torch.channels_last),
        x.new_empty(n, 3, c, dtype=torch.float32),
        x.new_empty(n, 2, groups, dtype=torch.float32),
    )


@torch.library.custom_op(
    "diffusion_art::group_norm_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor? scale, Tensor? offset, Tensor coefficients, "
    "Tensor statistics, int groups, bool silu) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _backward(grad, x, weight, bias, scale, offset, coefficients, statistics, groups, silu):
    from diffusion_art.accel import norm_kernels

    kept = (weight, bias, scale, offset, coefficients, statistics)
    return norm_kernels.backward(grad, x, *kept, groups=groups, silu=silu)


@_backward.register_fake
def _(grad, x, weight, bias, scale, offset, coefficients, statistics, groups, silu):
    n, c = x.shape[:2]
    like, shape = (weight, (0,)) if scale is None else (scale, (n, c))
    return (
        torch.empty_like(x, memory_format=torch.channels_last),
        x.new_empty(3, c, dtype=torch.float32),
        like.new_empty(shape),
        like.new_empty(shape),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, scale, _, offset, groups, _, silu = inputs
    _, coefficients, statistics = output
    ctx.mark_non_differentiable(coefficients, statistics)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, scale, offset, coefficients, statistics)
    ctx.groups, ctx.silu = groups, silu


def _gradients(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 9
    x, weight, bias, scale, offset, *kept = ctx.saved_tensors
    grad = grad.contiguous(memory_format=torch.channels_last)
    to_x, learned, to_scale, to_shift = _backward(grad, x, weight, bias, scale, offset, *kept, ctx.groups, ctx.silu)
    to_weight, to_bias, to_offset = learned.unbind(0)
    return (
        to_x,
        to_weight.to(weight.dtype),
        to_bias.to(bias.dtype),
        None if scale is None else to_scale,
        None if scale is None else to_shift,
        None if offset is None else to_offset.to(offset.dtype),
        *(None, None, None),
    )


_forward.register_autograd(_gradients, setup_context=_keep)


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
