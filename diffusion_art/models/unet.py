"""The backbone: a convolutional UNet that reads a caption by cross-attention and by its time embedding.

The blocks are diffusers' `UNet2DConditionModel`, so a trained network is one of diffusers' too (`UNet.as_diffusers`;
`export` with `format=diffusers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention as DiffusersAttention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.layers import TokenNorm
from diffusion_art.errors import UserError
from diffusion_art.models.backbone import Backbone
from diffusion_art.models.size_embedding import SizeEmbedding
from diffusion_art.models.unet_blocks import Attention, NormOut, ResidualBlock, Transformer, Upsample
from diffusion_art.tensors import Conditioning

TIME_SCALE = 1000.0  # diffusers' sinusoidal embedding resolves a clock of 0..1000


class UNet(Backbone):
    """diffusers' UNet with captions.

    Level i works at side `sample_size / 2^i` with `block_channels[i]` channels and `layers_per_block`
    residual blocks down (one more up). Levels whose side is in `attention_sides`, the lowest one for None, have
    self-attention and cross-attention to the caption's tokens after each residual block, in heads of `head_channels`
    channels, or of as few more as divide the level's; padding tokens are never attended to.
    Latents of another side are taken too, where it can be halved as often: `side_multiple` divides it.
    The caption's pooled vector is embedded and added to the time embedding, which scales and shifts every
    residual block. The last convolution starts at zero, so an untrained network answers zero.

    With `size_conditioning` an embedding of the latents' sides is added there too (`size_embedding.py`).

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
        attention_sides: Sequence[int] | None = (8,),
        head_channels: int = 48,
        norm_groups: int = 8,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        size_conditioning: bool = False,
    ):
        super().__init__()
        sides = [sample_size // 2**level for level in range(len(block_channels))]
        attention_sides = sides[-1:] if attention_sides is None else attention_sides
        attends = [side in attention_sides for side in sides]
        _check(sample_size, sides, attends, block_channels, attention_sides, norm_groups)

        self.channels = channels
        self.sample_size = sample_size
        self.side_multiple = 2 ** (len(sides) - 1)
        self.cross_attention_dim = cross_attention_dim
        self.pooled_dim = pooled_dim
        self.maps = {"up": block_channels[-1], "middle": block_channels[-1]}
        self.regions = (ResidualBlock, BasicTransformerBlock if gradient_checkpointing else Transformer)
        settings: dict[str, Any] = {
            "sample_size": sample_size,
            "in_channels": channels,
            "out_channels": channels,
            "block_out_channels": tuple(block_channels),
            "layers_per_block": _per_level(layers_per_block, len(sides)),
            "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            "mid_block_type": "UNetMidBlock2DCrossAttn" if attends[-1] else "UNetMidBlock2D",
            "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            # diffusers' name for what it reads as the number of heads
            "attention_head_dim": tuple(heads_of(width, head_channels) for width in block_channels),
            "use_linear_projection": True,
            "cross_attention_dim": cross_attention_dim,
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": pooled_dim,
            "resnet_time_scale_shift": "scale_shift",
            "norm_num_groups": norm_groups,
            "dropout": dropout,
        }
        self.net = UNet2DConditionModel(**settings)
        ours: dict[type, Any] = {
            ResnetBlock2D: ResidualBlock,
            Upsample2D: Upsample,
            DiffusersAttention: Attention,
            Transformer2DModel: Transformer,
            nn.LayerNorm: TokenNorm,
        }
        for name, block in list(self.net.named_modules()):
            if type(block) in ours:
                self.net.set_submodule(name, ours[type(block)](block))
        assert self.net.conv_norm_out is not None
        self.net.conv_norm_out, self.net.conv_act = NormOut(self.net.conv_norm_out), nn.Identity()
        width = 4 * block_channels[0]  # diffusers' choice for the embedding of the time
        self.size_embedding = SizeEmbedding(width, sample_size) if size_conditioning else None
        for parameter in self.net.conv_out.parameters():
            nn.init.zeros_(parameter)
        if gradient_checkpointing:
            self.net.enable_gradient_checkpointing()
        self.to(memory_format=torch.channels_last)

    @property
    def shards(self) -> Sequence[nn.Module]:
        net: Any = self.net
        return [*net.down_blocks, net.mid_block, *net.up_blocks]

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]:
        return self.with_map(x_t, t, cond, "middle")[0]

    @torch.no_grad()
    def as_diffusers(self) -> UNet2DConditionModel:
        """diffusers' own network, blocks and attention, of the same settings and with the same weights.

        It is called with t * 1000 for the time, and with a caption's tokens, mask and pooled vector as
        `encoder_hidden_states`, `encoder_attention_mask` and `class_labels`. Of a network that is told its size this
        is the one for squares.
        """
        net = UNet2DConditionModel(**{k: v for k, v in self.net.config.items() if not k.startswith("_")})
        net.load_state_dict(self.net.state_dict())
        if self.size_embedding is not None:
            told: Any = net.class_embedding
            told.linear_2.bias += self.size_embedding(self.sample_size, self.sample_size)
        return net.eval()

    def with_map(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning, place: str
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b m h2 w2"]]:
        """`middle` is what the block between the way down and the way up answers, `up` what the first block of the way
        up does: the smallest level with what it was shown on the way down, brought to twice the side.

        The same blocks as in `UNet2DConditionModel.forward`, by a way of our own: `torch.compile` would not see a hook
        on a block.
        """
        net: Any = self.net
        dtype = x_t.dtype
        temb = net.time_embedding(net.time_proj(t * TIME_SCALE).to(dtype)) + net.class_embedding(cond.pooled).to(dtype)
        if self.size_embedding is not None:
            temb = temb + self.size_embedding(x_t.shape[2], x_t.shape[3]).to(dtype)
        told = {
            "encoder_hidden_states": cond.tokens if cond.tokens.requires_grad else cond.tokens.to(computed_in(x_t)),
            "encoder_attention_mask": (1 - cond.mask.to(computed_in(x_t)))[:, None] * -10000.0,  # on logits of padding
        }

        def run(block: nn.Module, x: Tensor, **others: Any) -> Any:
            return block(x, temb=temb, **others, **(told if getattr(block, "has_cross_attention", False) else {}))

        x = net.conv_in(x_t.contiguous(memory_format=torch.channels_last))
        skips = (x,)
        for block in net.down_blocks:
            x, kept = run(block, x)
            skips += kept
        x = run(net.mid_block, x)
        seen = {"middle": x}
        for block in net.up_blocks:
            count = len(block.resnets)
            x, skips = run(block, x, res_hidden_states_tuple=skips[-count:]), skips[:-count]
            seen.setdefault("up", x)
        return net.conv_out(net.conv_norm_out(x)), seen[place]


def computed_in(x: Tensor) -> torch.dtype:
    """What products with x are computed in: cast once to it, the caption is not cast by each block that reads it."""
    device = x.device.type
    autocast = not x.is_meta and torch.is_autocast_enabled(device)  # "meta" is a device that autocast does not know
    return torch.get_autocast_dtype(device) if autocast else x.dtype


def _per_level(value: int | Sequence[int], levels: int) -> tuple[int, ...]:
    return (value,) * levels if isinstance(value, int) else tuple(value)


def heads_of(width: int, head_channels: int) -> int:
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
