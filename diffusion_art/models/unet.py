"""The backbone: a convolutional UNet that reads a caption by cross-attention and by its time embedding.

    e = mlp(waves(t)) + mlp(pooled)
    x = conv_in(x_t),   down: x, shown <- level(x, e, tokens),   middle,   up: x <- level([x, shown], e, tokens)
    out = conv_out(silu(norm(x)))

Its weights have the names of diffusers' `UNet2DConditionModel`, so a trained network is one of diffusers' too
(`UNet.as_diffusers`; `export` with `format=diffusers`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.layout import channels_last
from diffusion_art.accel.norm import group_norm
from diffusion_art.errors import UserError
from diffusion_art.models.attention import Transformer, TransformerBlock
from diffusion_art.models.backbone import Backbone
from diffusion_art.models.unet_levels import Down, Middle, ResidualBlock, Sizes, Up
from diffusion_art.tensors import Conditioning

TIME_SCALE = 1000.0  # the sinusoids resolve a clock of 0..1000
LONGEST_WAVE = 10_000.0


class UNet(Backbone):
    """A UNet with captions.

    Level i works at side `sample_size / 2^i` with `block_channels[i]` channels and `layers_per_block`
    residual blocks down (one more up). Levels whose side is in `attention_sides` have self-attention and
    cross-attention to the caption's tokens after each residual block, in heads of `head_channels` channels, or of as
    few more as divide the level's; padding tokens are never attended to.
    Latents of another side are taken too, where it can be halved as often: `side_multiple` divides it.
    The caption's pooled vector is embedded and added to the time embedding, which scales and shifts every
    residual block. The last convolution starts at zero, so an untrained network answers zero.

    With `gradient_checkpointing` each block keeps its input only, and computes the rest again for its gradients, which
    are the same to the bit: Chen et al. 2016, https://arxiv.org/abs/1604.06174

    Paper: Dhariwal & Nichol 2021 (scale and shift, attention by resolution), https://arxiv.org/abs/2105.05233;
    Rombach et al. 2022 (cross-attention to text), https://arxiv.org/abs/2112.10752

    Raises:
        UserError: no level has a side of `attention_sides`, `sample_size` cannot be halved often enough, or
            the channels of a level do not divide into its groups; heads without channels.
    """

    outer = ("net.time_embedding", "net.class_embedding", "net.conv_in", "net.conv_out")

    def __init__(
        self,
        *,
        channels: int,
        sample_size: int,
        cross_attention_dim: int,
        pooled_dim: int,
        block_channels: Sequence[int] = (64, 96, 128),
        layers_per_block: int | Sequence[int] = 1,
        attention_sides: Sequence[int] = (8,),
        head_channels: int = 48,
        norm_groups: int = 8,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        sides = [sample_size // 2**level for level in range(len(block_channels))]
        attends = [side in attention_sides for side in sides]
        _check(sample_size, sides, attends, block_channels, attention_sides, norm_groups)

        self.channels = channels
        self.sample_size = sample_size
        self.side_multiple = 2 ** (len(sides) - 1)
        self.cross_attention_dim = cross_attention_dim
        self.pooled_dim = pooled_dim
        self.maps = {"up": block_channels[-1], "middle": block_channels[-1]}
        self.regions = (ResidualBlock, TransformerBlock if gradient_checkpointing else Transformer)
        self.heads = [_heads(width, head_channels) for width in block_channels]
        self.net = Network(
            channels,
            block_channels,
            Sizes(4 * block_channels[0], cross_attention_dim, norm_groups, dropout, gradient_checkpointing),
            pooled_dim=pooled_dim,
            layers=_per_level(layers_per_block, len(sides)),
            heads=[heads if there else None for heads, there in zip(self.heads, attends)],
        )
        for parameter in self.net.conv_out.parameters():
            nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]:
        return self.with_map(x_t, t, cond, "middle")[0]

    def with_map(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning, place: str
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b m h2 w2"]]:
        """`middle` is what the block between the way down and the way up answers, `up` what the first level of the way
        up does: the smallest level with what it was shown on the way down, brought to twice the side.
        """
        net: Any = self.net
        dtype = x_t.dtype
        clock = waves(t * TIME_SCALE, net.conv_in.out_channels).to(dtype)
        temb = net.time_embedding(clock) + net.class_embedding(cond.pooled).to(dtype)
        tokens = cond.tokens if cond.tokens.requires_grad else cond.tokens.to(computed_in(x_t))
        told = (tokens, (1 - cond.mask.to(computed_in(x_t)))[:, None] * -10000.0)  # on logits of padding

        x = net.conv_in(channels_last(x_t))
        skips = [x]
        for level in net.down_blocks:
            x, shown = level(x, temb, told)
            skips += shown
        x = net.mid_block(x, temb, told)
        seen = {"middle": x}
        for level in net.up_blocks:
            count = len(level.resnets)
            x, skips = level(x, temb, told, skips[-count:]), skips[:-count]
            seen.setdefault("up", x)
        return net.conv_out(group_norm(x, net.conv_norm_out, silu=True)), seen[place]

    @torch.no_grad()
    def as_diffusers(self) -> Any:
        """diffusers' own `UNet2DConditionModel` of the same settings and with the same weights.

        It is called with t * 1000 for the time, and with a caption's tokens, mask and pooled vector as
        `encoder_hidden_states`, `encoder_attention_mask` and `class_labels`.
        """
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # takes two seconds to import

        levels: list[Any] = list(self.net.down_blocks)
        attends = [len(level.attentions) > 0 for level in levels]
        net = UNet2DConditionModel(
            sample_size=self.sample_size,
            in_channels=self.channels,
            out_channels=self.channels,
            block_out_channels=tuple(level.resnets[-1].conv2.out_channels for level in levels),
            layers_per_block=tuple(len(level.resnets) for level in levels),  # type: ignore[arg-type]
            down_block_types=tuple("CrossAttnDownBlock2D" if there else "DownBlock2D" for there in attends),
            mid_block_type="UNetMidBlock2DCrossAttn" if attends[-1] else "UNetMidBlock2D",
            up_block_types=tuple("CrossAttnUpBlock2D" if there else "UpBlock2D" for there in reversed(attends)),
            attention_head_dim=tuple(self.heads),  # type: ignore[arg-type]  # what it reads as the number of heads
            use_linear_projection=True,
            cross_attention_dim=self.cross_attention_dim,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=self.pooled_dim,
            resnet_time_scale_shift="scale_shift",
            norm_num_groups=self.net.conv_norm_out.num_groups,
            dropout=levels[0].resnets[0].dropout.p,
        )
        net.load_state_dict(self.net.state_dict())
        return net.eval()


class Network(nn.Module):
    """The parts of a UNet by diffusers' names; `heads` of a level that does not attend are None."""

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        sizes: Sizes,
        *,
        pooled_dim: int,
        layers: Sequence[int],
        heads: Sequence[int | None],
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.time_embedding = Embedding(widths[0], sizes.time_dim)
        self.class_embedding = Embedding(pooled_dim, sizes.time_dim)
        depth = len(widths) - 1
        down = [
            Down(_widths_down(widths, level, layers[level]), sizes, heads=heads[level], last=level == depth)
            for level in range(depth + 1)
        ]
        middle = Middle(widths[-1], sizes, heads=heads[-1])
        up = [
            Up(_widths_up(widths, level, layers[level] + 1), sizes, heads=heads[level], last=level == 0)
            for level in range(depth, -1, -1)
        ]
        self.down_blocks, self.up_blocks, self.mid_block = nn.ModuleList(down), nn.ModuleList(up), middle
        self.conv_norm_out = nn.GroupNorm(sizes.groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], channels, 3, padding=1)


class Embedding(nn.Module):
    """linear(silu(linear(x)))"""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(features, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, x: Float[Tensor, "b f"]) -> Float[Tensor, "b k"]:
        return self.linear_2(F.silu(self.linear_1(x)))


def waves(clock: Float[Tensor, " b"], count: int) -> Float[Tensor, "b n"]:
    """cos and sin at `count` / 2 frequencies from 1 down to nearly 1 / LONGEST_WAVE; 0 at the end of an odd count."""
    half = count // 2
    falling = -math.log(LONGEST_WAVE) * torch.arange(half, dtype=torch.float32, device=clock.device) / half
    angles = clock[:, None].float() * torch.exp(falling)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, count % 2))


def _widths_down(widths: Sequence[int], level: int, blocks: int) -> list[tuple[int, int]]:
    """Channels in and out of each residual block of a level on the way down."""
    out = widths[level]
    return [(widths[max(0, level - 1)], out)] + [(out, out)] * (blocks - 1)


def _widths_up(widths: Sequence[int], level: int, blocks: int) -> list[tuple[int, int]]:
    """The same on the way up, where each block also gets what the way down has shown: last what came into its level."""
    out, below, above = widths[level], widths[min(level + 1, len(widths) - 1)], widths[max(0, level - 1)]
    into = [below] + [out] * (blocks - 1)
    shown = [out] * (blocks - 1) + [above]
    return [(channels + seen, out) for channels, seen in zip(into, shown)]


def computed_in(x: Tensor) -> torch.dtype:
    """What products with x are computed in: cast once to it, the caption is not cast by each block that reads it."""
    device = x.device.type
    autocast = not x.is_meta and torch.is_autocast_enabled(device)  # "meta" is a device that autocast does not know
    return torch.get_autocast_dtype(device) if autocast else x.dtype


def _per_level(value: int | Sequence[int], levels: int) -> tuple[int, ...]:
    return (value,) * levels if isinstance(value, int) else tuple(value)


def _heads(width: int, head_channels: int) -> int:
    """How many heads of equal width a level gets: of `head_channels`, or of as few more as divide it."""
    if head_channels < 1:
        raise UserError(f"model.backbone.head_channels={head_channels} must be at least 1; 24 to 64 are usual")
    return next(heads for heads in range(max(1, width // head_channels), 0, -1) if width % heads == 0)


def _check(sample_size, sides, attends, block_channels, attention_sides, norm_groups) -> None:
    if any(2 * below != above for above, below in pairwise(sides)):
        raise UserError(
            f"a UNet of {len(sides)} levels halves its input {len(sides) - 1} times, and latents of side "
            f"{sample_size} cannot be: use an image size that is a multiple of {2 ** (len(sides) - 1)} "
            "after the codec."
        )
    if not any(attends):
        raise UserError(
            f"no level of the UNet has a side of attention_sides={list(attention_sides)}: at this image size "
            f"they have {', '.join(map(str, sides))}. Set model.backbone.attention_sides to some of them."
        )
    for width in block_channels:
        if width % norm_groups:
            raise UserError(
                f"block_channels={width} does not divide into norm_groups={norm_groups} groups: choose a multiple of "
                "that, such as the next one, or fewer groups."
            )
