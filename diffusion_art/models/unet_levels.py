"""The levels of a UNet: residual blocks, transformers, and the way to the next level. Weights have diffusers' names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.layout import channels_last
from diffusion_art.accel.norm import conv_group_norm, group_norm
from diffusion_art.accel.upsample import upsampled
from diffusion_art.models.attention import Transformer, run

Told = tuple[Float[Tensor, "b l e"], Float[Tensor, "b 1 l"]]  # a caption's tokens, and what is added to their logits


class ResidualBlock(nn.Module):
    """x -> shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x)))) (1 + scale) + shift)), the last two from the time."""

    def __init__(self, channels: int, out: int, *, time_dim: int, groups: int, dropout: float = 0.0) -> None:
        super().__init__()
        conv1, time_emb_proj, conv2 = _conv(channels, out), nn.Linear(time_dim, 2 * out), _conv(out, out)
        self.norm1, self.conv1 = nn.GroupNorm(groups, channels), conv1
        self.norm2, self.conv2 = nn.GroupNorm(groups, out), conv2
        self.time_emb_proj = time_emb_proj
        self.dropout = nn.Dropout(dropout)
        self.conv_shortcut = None if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Float[Tensor, "b c h w"], temb: Float[Tensor, "b k"]) -> Float[Tensor, "b d h w"]:
        x = channels_last(x)
        hidden = group_norm(x, self.norm1, silu=True)
        scale, shift = self.time_emb_proj(F.silu(temb)).chunk(2, dim=1)
        hidden = conv_group_norm(hidden, self.conv1, self.norm2, scale, shift, silu=True)
        hidden = self.conv2(self.dropout(hidden))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.conv(x)


class Upsample(nn.Module):
    """x -> conv(every pixel of x four times)"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        return upsampled(x, self.conv)


@dataclass(frozen=True)
class Sizes:
    """What the levels of a network have in common."""

    time_dim: int
    told_dim: int  # features of a caption's tokens
    groups: int  # of the norms
    dropout: float
    checkpointing: bool


class Level(nn.Module):
    """Residual blocks from and to so many channels; with `heads` each has a transformer after it."""

    def __init__(self, widths: Sequence[tuple[int, int]], sizes: Sizes, *, heads: int | None) -> None:
        super().__init__()
        self.checkpointing = sizes.checkpointing
        resnets, attentions = [], []
        for channels, out in widths:
            resnets.append(_residual(channels, out, sizes))
            if heads:
                attentions.append(_transformer(out, heads, sizes))
        self.attentions, self.resnets = nn.ModuleList(attentions), nn.ModuleList(resnets)

    def block(self, number: int, x: Tensor, temb: Float[Tensor, "b k"], told: Told) -> Tensor:
        """The residual block of that number, and the transformer after it."""
        x = run(self.resnets[number], x, temb, checkpointing=self.checkpointing)
        return self.attentions[number](x, *told) if self.attentions else x


class Down(Level):
    """A level on the way down; all but the `last` bring the map to half its sides."""

    def __init__(self, widths: Sequence[tuple[int, int]], sizes: Sizes, *, heads: int | None, last: bool) -> None:
        super().__init__(widths, sizes, heads=heads)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(widths[-1][1])])

    def forward(
        self, x: Float[Tensor, "b c h w"], temb: Float[Tensor, "b k"], told: Told
    ) -> tuple[Float[Tensor, "b d h2 w2"], list[Tensor]]:
        """What the next level gets, and what the way up is shown of this one."""
        shown = []
        for number in range(len(self.resnets)):
            x = self.block(number, x, temb, told)
            shown.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            shown.append(x)
        return x, shown


class Middle(nn.Module):
    """A residual block; with `heads` a transformer and one more."""

    def __init__(self, channels: int, sizes: Sizes, *, heads: int | None) -> None:
        super().__init__()
        self.checkpointing = sizes.checkpointing
        resnets, attentions = [_residual(channels, channels, sizes)], []
        if heads:
            attentions.append(_transformer(channels, heads, sizes))
            resnets.append(_residual(channels, channels, sizes))
        self.attentions, self.resnets = nn.ModuleList(attentions), nn.ModuleList(resnets)

    def forward(self, x: Float[Tensor, "b c h w"], temb: Float[Tensor, "b k"], told: Told) -> Float[Tensor, "b c h w"]:
        x = self.resnets[0](x, temb)
        for attend, block in zip(self.attentions, self.resnets[1:], strict=True):
            x = run(block, attend(x, *told), temb, checkpointing=self.checkpointing)
        return x


class Up(Level):
    """A level on the way up; all but the `last` bring the map to twice its sides."""

    def __init__(self, widths: Sequence[tuple[int, int]], sizes: Sizes, *, heads: int | None, last: bool) -> None:
        super().__init__(widths, sizes, heads=heads)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(widths[-1][1])])

    def forward(
        self, x: Float[Tensor, "b c h w"], temb: Float[Tensor, "b k"], told: Told, shown: Sequence[Tensor]
    ) -> Float[Tensor, "b d h2 w2"]:
        """Each block sees one of the maps that the way down has `shown`, the first block the last of them."""
        for number, seen in enumerate(reversed(shown)):
            x = self.block(number, torch.cat([x, seen], dim=1), temb, told)
        for upsample in self.upsamplers:
            x = upsample(x)
        return x


def _residual(channels: int, out: int, sizes: Sizes) -> ResidualBlock:
    return ResidualBlock(channels, out, time_dim=sizes.time_dim, groups=sizes.groups, dropout=sizes.dropout)


def _transformer(width: int, heads: int, sizes: Sizes) -> Transformer:
    return Transformer(
        width, heads=heads, groups=sizes.groups, told_dim=sizes.told_dim, checkpointing=sizes.checkpointing
    )


def _conv(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)
