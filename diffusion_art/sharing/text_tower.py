"""The text tower of a model of diffusion_art that was trained along with its UNet, by torch and diffusers alone.

TextTower.from_pretrained(FOLDER, subfolder="text_encoder")
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.outputs import BaseOutput
from torch import nn


@dataclass
class TextStates(BaseOutput):
    """Under the names of transformers' CLIP."""

    last_hidden_state: torch.Tensor  # b l d, for cross-attention
    text_embeds: torch.Tensor  # b p, the UNet's class_labels


class TextTower(ModelMixin, ConfigMixin):
    """CLIP's pre-norm blocks, reading both ways; the pooled vector is the projected mean of the real tokens."""

    @register_to_config
    def __init__(
        self,
        width: int = 192,
        layers: int = 2,
        heads: int = 3,
        hidden: int = 384,
        vocab_size: int = 4096,
        context_length: int = 64,
        pooled_dim: int = 192,
    ):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(context_length, width))
        blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.ln_final = nn.LayerNorm(width)
        self.ln_pooled = nn.LayerNorm(width)
        self.pooled_projection = nn.Linear(width, pooled_dim)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> TextStates:
        """Ids [b l], and 1 on real tokens, 0 on padding."""
        padding = attention_mask == 0
        x = self.token_embedding(input_ids) + self.positional_embedding[: input_ids.shape[1]]
        for block in self.transformer["resblocks"].children():
            x = block(x, padding)
        x = self.ln_final(x)
        real = attention_mask[..., None].to(x.dtype)
        pooled = self.pooled_projection(self.ln_pooled((x * real).sum(1) / real.sum(1)))
        return TextStates(last_hidden_state=x, text_embeds=pooled)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, hidden), "gelu": nn.GELU(), "c_proj": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, key_padding_mask=padding)[0]
        return x + self.mlp(self.ln_2(x))
