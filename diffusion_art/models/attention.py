"""Attention by the formula or by torch's fused kernel, and diffusers' module of a UNet's transformer around it.

The module's weights are as they are; what it asks of the same tokens is one matrix product, and between it and the
answer nothing is done that the UNet does not need.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention as DiffusersAttention
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Attention of a picture's positions to each other, or to a caption's tokens.

    Has the parts, and so the names, of `block`.

    Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
    """

    PLAIN_QUERIES = 256  # up to so many the plain formula trains 2 to 5 times as fast on a CPU

    def __init__(self, block: DiffusersAttention):
        super().__init__()
        others = ("group_norm", "spatial_norm", "norm_q", "norm_k", "norm_cross", "add_k_proj")
        assert all(getattr(block, name) is None for name in others)
        assert not block.residual_connection
        assert block.rescale_output_factor == 1
        assert block.scale_qk
        assert block.to_k is not None
        assert block.to_v is not None
        assert block.to_out is not None
        self.heads = block.heads
        self.to_q, self.to_k, self.to_v = block.to_q, block.to_k, block.to_v
        self.to_out: nn.ModuleList = block.to_out

    def forward(
        self,
        hidden_states: Float[Tensor, "b n c"],
        encoder_hidden_states: Float[Tensor, "b l e"] | None = None,
        attention_mask: Float[Tensor, "b 1 l"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """`attention_mask` is added to the logits. The arguments' names are diffusers'."""
        x, told = hidden_states, encoder_hidden_states
        if told is None:
            q, k, v = _joined(x, self.to_q, self.to_k, self.to_v)
        else:
            q, (k, v) = self.to_q(x), _joined(told, self.to_k, self.to_v)
        q, k, v = (rearrange(part, "b n (heads d) -> b heads n d", heads=self.heads) for part in (q, k, v))
        bias = None if attention_mask is None else attention_mask.to(q.dtype)[:, None]
        x = rearrange(attention(q, k, v, bias, plain_queries=self.PLAIN_QUERIES), "b heads n d -> b n (heads d)")
        for part in self.to_out:
            x = part(x)
        return x


def attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h l d"],
    v: Float[Tensor, "b h l d"],
    bias: Float[Tensor, "b 1 1 l"] | None,
    *,
    plain_queries: int,
) -> Float[Tensor, "b h n d"]:
    """softmax(q k^T / sqrt(d) + bias) v: on a CPU by the formula up to `plain_queries`, else by torch's kernel."""
    b, h, n, d = q.shape
    if q.device.type != "cpu" or n > plain_queries:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    start = q.new_zeros(1, 1, 1) if bias is None else bias.expand(b, h, 1, -1).flatten(0, 1)
    logits = torch.baddbmm(start, q.flatten(0, 1), k.flatten(0, 1).mT, beta=float(bias is not None), alpha=d**-0.5)
    return torch.bmm(logits.softmax(-1), v.flatten(0, 1)).unflatten(0, (b, h))


def _joined(x: Tensor, *projections: nn.Linear) -> tuple[Tensor, ...]:
    """Each projection of x, by one product."""
    assert all(part.bias is None for part in projections)
    return F.linear(x, torch.cat([part.weight for part in projections])).chunk(len(projections), dim=-1)
