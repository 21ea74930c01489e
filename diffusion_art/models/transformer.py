"""diffusers' transformer of a UNet, its weights as they are: a map's positions as tokens and back.

Channels stay last on a GPU: diffusers' own brings the tokens back to NCHW, and the next block turns the map again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.layout import as_map
from diffusion_art.accel.norm import group_norm


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
