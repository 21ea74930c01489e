"""diffusers' attention of a UNet's transformer, its weights as they are, its projections joined.

What is asked of the same tokens is one matrix product, and between it and the answer nothing is done that the UNet does
not need. Where a CPU has few queries the plain formula is taken, elsewhere torch's fused kernel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention as DiffusersAttention
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v over heads of d channels; of the pictures themselves, or of a caption's tokens.

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
        assert block.to_k is not None
        assert block.to_v is not None
        assert block.to_out is not None
        self.heads, self.scale = block.heads, block.scale
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
        attend = self._plain if x.device.type == "cpu" and x.shape[1] <= self.PLAIN_QUERIES else self._fused
        x = attend(q, k, v, attention_mask)
        for part in self.to_out:
            x = part(x)
        return x

    def _plain(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = (rearrange(x, "b n (heads d) -> (b heads) n d", heads=self.heads) for x in (q, k, v))
        if bias is None:
            logits = torch.baddbmm(q.new_empty(1, 1, 1), q, k.mT, beta=0, alpha=self.scale)
        else:
            bias = bias.to(q.dtype).repeat_interleave(self.heads, dim=0)
            logits = torch.baddbmm(bias, q, k.mT, alpha=self.scale)
        return rearrange(torch.bmm(logits.softmax(-1), v), "(b heads) n d -> b n (heads d)", heads=self.heads)

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = (rearrange(x, "b n (heads d) -> b heads n d", heads=self.heads) for x in (q, k, v))
        bias = None if bias is None else bias.to(q.dtype)[:, None]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        return rearrange(x, "b heads n d -> b n (heads d)")


def _joined(x: Tensor, *projections: nn.Linear) -> tuple[Tensor, ...]:
    """Each projection of x, by one product."""
    assert all(part.bias is None for part in projections)
    return F.linear(x, torch.cat([part.weight for part in projections])).chunk(len(projections), dim=-1)
