"""Group norm in Triton (`norm_kernels.py`) as operators that torch can compile and differentiate."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def fast_group_norm(
    x: Float[Tensor, "b c h w"],
    norm: nn.GroupNorm,
    scale: Float[Tensor, "b c"] | None = None,
    shift: Float[Tensor, "b c"] | None = None,
    *,
    silu: bool = False,
    offset: Float[Tensor, " c"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """`norm` of x + offset, times 1 + scale, plus shift, through SiLU. An x that is not channels-last is turned.

    Scale and shift come together.
    """
    assert (scale is None) == (shift is None)
    x = x.contiguous(memory_format=torch.channels_last)
    if scale is not None and shift is not None:
        scale, shift = _rows(scale), _rows(shift)
    return _forward(x, norm.weight, norm.bias, scale, shift, offset, norm.num_groups, norm.eps, silu)[0]


def _rows(values: Tensor) -> Tensor:
    """[b c] whose rows may lie apart, each of them contiguous."""
    return values if values.stride(1) == 1 else values.contiguous()


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
