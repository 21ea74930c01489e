"""diffusers' blocks of a UNet, their weights as they are: the residual block, the transformer and its attention.

Channels lie last throughout. diffusers' own residual block turns its input around for the shortcut while training,
which costs a UNet on a CPU about a twentieth of its step. Its own upsampling does so for batches of 64 and more,
because of faults in kernels that were repaired long ago, which gives tensors other strides there. On a GPU its own
transformer brings the tokens back to NCHW, and the next block turns the map again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention as DiffusersAttention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.layers import (
    as_map,
    attention,
    channels_last,
    conv_group_norm,
    group_norm,
    projected,
    upsampled,
)


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
        x = channels_last(x)
        scale, shift = self.time_emb_proj(F.silu(temb)).chunk(2, dim=1)
        # no name for what the first norm says, so that its memory serves what comes after the convolution
        hidden = conv_group_norm(group_norm(x, self.norm1, silu=True), self.conv1, self.norm2, scale, shift, silu=True)
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
    """x -> conv(every pixel of x four times). Has the part, and so the name, of `block`."""

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
        """`output_size` is diffusers', for sides that were odd; those are refused here."""
        assert output_size is None
        return upsampled(x, self.conv)


class Attend(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v, as a part without weights: a hook on it sees what attends to what.

    `few` is that of `accel.layers.attention`.
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


class Transformer(nn.Module):
    """x + proj_out(blocks(proj_in(norm(x)))), the blocks over positions.

    Has the parts, and so the names, of `block`.
    """

    _gradient_checkpointing_func: Callable[..., Tensor]  # set by diffusers where activations are computed twice

    def __init__(self, block: Transformer2DModel):
        super().__init__()
        assert block.is_input_continuous
        assert block.use_linear_projection
        self.norm, self.proj_in = block.norm, block.proj_in
        self.transformer_blocks, self.proj_out = block.transformer_blocks, block.proj_out
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Float[Tensor, "b c h w"],
        encoder_hidden_states: Float[Tensor, "b l e"] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Float[Tensor, "b 1 l"] | None = None,
        return_dict: bool = False,
    ) -> tuple[Float[Tensor, "b c h w"]]:
        """`encoder_attention_mask` is added to the logits. The arguments and the tuple are diffusers'."""
        assert cross_attention_kwargs is None
        assert attention_mask is None
        assert not return_dict
        x = self.proj_in(rearrange(group_norm(hidden_states, self.norm), "b c h w -> b (h w) c"))
        for block in self.transformer_blocks:
            x = self._through(block, x, encoder_hidden_states, encoder_attention_mask)
        return (as_map(self.proj_out(x), rows=hidden_states.shape[2]) + hidden_states,)

    def _through(self, block: nn.Module, x: Tensor, tokens: Tensor | None, bias: Tensor | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, x, None, tokens, bias)
        return block(x, None, tokens, bias)
