"""diffusers' attention of a UNet's transformer, its weights as they are, without what the UNet does not need."""

from __future__ import annotations

from diffusers.models.attention_processor import Attention as DiffusersAttention
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.attention import attention
from diffusion_art.accel.projections import projected


class Attend(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v, as a part without weights: a hook on it sees what attends to what.

    `few` is that of `accel.attention`.
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


class Attention(nn.Module):
    """Attention of a picture's positions to each other, or to a caption's tokens.

    Has the parts, and so the names, of `block`.

    Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
    """

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
        self.attend = Attend()

    def forward(
        self,
        hidden_states: Float[Tensor, "b n c"],
        encoder_hidden_states: Float[Tensor, "b l e"] | None = None,
        attention_mask: Float[Tensor, "b 1 l"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """`attention_mask` is added to the logits. The arguments' names are diffusers'."""
        x, told = hidden_states, encoder_hidden_states
        if told is None:
            q, k, v = projected(x, self.to_q, self.to_k, self.to_v)
        else:
            q, (k, v) = self.to_q(x), projected(told, self.to_k, self.to_v)
        q, k, v = (rearrange(part, "b n (heads d) -> b heads n d", heads=self.heads) for part in (q, k, v))
        bias = None if attention_mask is None else attention_mask.to(q.dtype)[:, None]
        x = rearrange(self.attend(q, k, v, bias), "b heads n d -> b n (heads d)")
        for part in self.to_out:
            x = part(x)
        return x
