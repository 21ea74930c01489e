"""Attention: by the formula where positions are few and the device is a CPU, else by torch's fused kernel.

    softmax(q k^T / sqrt(d) + bias) v

There the formula trains 2 to 5 times as fast as the kernel, the more so the wider the head. The linear maps before it
are one product of matrices.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffusion_art.accel import switch

FEW = 256  # queries of a picture up to which the formula is faster
FEW_JOINT = 512  # the same where a caption's tokens stand among them


def attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h l d"],
    v: Float[Tensor, "b h l d"],
    bias: Float[Tensor, "b 1 1 l"] | None,
    *,
    few: int | None = None,
) -> Float[Tensor, "b h n d"]:
    """The bias is added to the logits. `few` queries are FEW if not given."""
    if switch.ON and q.device.type == "cpu" and q.shape[2] <= (FEW if few is None else few):
        return by_formula(q, k, v, bias)
    return plain(q, k, v, bias)


def plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """By torch's fused kernel."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def by_formula(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    b, h, _, d = q.shape
    start = q.new_zeros(1, 1, 1) if bias is None else bias.expand(b, h, 1, -1).flatten(0, 1)
    logits = torch.baddbmm(start, q.flatten(0, 1), k.flatten(0, 1).mT, beta=float(bias is not None), alpha=d**-0.5)
    return torch.bmm(logits.softmax(-1), v.flatten(0, 1)).unflatten(0, (b, h))


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
