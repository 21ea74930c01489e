"""Attention and the transformer of a UNet, with diffusers' names for their weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion_art.accel.attention import attention
from diffusion_art.accel.layout import as_map
from diffusion_art.accel.norm import group_norm
from diffusion_art.accel.projections import projected
from diffusion_art.accel.token_norm import TokenNorm

GROUP_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Attention of positions to each other, or to a caption's tokens of `told_dim` features.

    Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
    """

    def __init__(self, width: int, *, heads: int, told_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(told_dim or width, width, bias=False)
        self.to_v = nn.Linear(told_dim or width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        told: Float[Tensor, "b l e"] | None = None,
        bias: Float[Tensor, "b 1 l"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """The bias is added to the logits."""
        if told is None:
            q, k, v = projected(x, self.to_q, self.to_k, self.to_v)
        else:
            q, (k, v) = self.to_q(x), projected(told, self.to_k, self.to_v)
        q, k, v = (rearrange(part, "b n (heads d) -> b heads n d", heads=self.heads) for part in (q, k, v))
        x = attention(q, k, v, None if bias is None else bias.to(q.dtype)[:, None])
        return self.to_out(rearrange(x, "b heads n d -> b n (heads d)"))


class GatedGelu(nn.Module):
    """a * gelu(b), (a, b) = linear(x): Shazeer 2020, https://arxiv.org/abs/2002.05202"""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n d"]:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 4 * width
        self.net = nn.Sequential(GatedGelu(width, hidden), nn.Identity(), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return self.net(x)


class TransformerBlock(nn.Module):
    """x <- x + attention(norm(x)),   x <- x + attention(norm(x), caption),   x <- x + feed_forward(norm(x))"""

    def __init__(self, width: int, *, heads: int, told_dim: int) -> None:
        super().__init__()
        self.norm1 = TokenNorm(width)
        self.attn1 = Attention(width, heads=heads)
        self.norm2 = TokenNorm(width)
        self.attn2 = Attention(width, heads=heads, told_dim=told_dim)
        self.norm3 = TokenNorm(width)
        self.ff = FeedForward(width)

    def forward(
        self, x: Float[Tensor, "b n c"], told: Float[Tensor, "b l e"], bias: Float[Tensor, "b 1 l"]
    ) -> Float[Tensor, "b n c"]:
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), told, bias) + x
        return self.ff(self.norm3(x)) + x


class Transformer(nn.Module):
    """x + proj_out(block(proj_in(norm(x)))), the block over a map's positions, which are told of a caption."""

    def __init__(self, width: int, *, heads: int, groups: int, told_dim: int, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.norm = nn.GroupNorm(groups, width, eps=GROUP_NORM_EPS)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads=heads, told_dim=told_dim)])
        self.proj_out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b c h w"], told: Float[Tensor, "b l e"], bias: Float[Tensor, "b 1 l"]
    ) -> Float[Tensor, "b c h w"]:
        tokens = self.proj_in(rearrange(group_norm(x, self.norm), "b c h w -> b (h w) c"))
        for block in self.transformer_blocks:
            tokens = run(block, tokens, told, bias, checkpointing=self.checkpointing)
        return as_map(self.proj_out(tokens), rows=x.shape[2]) + x


def run(block: nn.Module, *arguments: Tensor, checkpointing: bool) -> Tensor:
    """The block's answer. With `checkpointing` it keeps its inputs only, and computes the rest again for gradients."""
    if checkpointing and torch.is_grad_enabled():
        return checkpoint(block, *arguments, use_reentrant=False)
    return block(*arguments)
