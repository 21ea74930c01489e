"""The backbone: a convolutional UNet that reads a caption by cross-attention and by its time embedding.

The blocks are diffusers' `UNet2DConditionModel`, so a trained network is one of diffusers' too (`UNet.as_diffusers`;
`export` with `format=diffusers`). The residual block, the transformer, its attention and the upsampling are replaced by
ours, which have their weights as they are and keep channels last throughout. diffusers' own residual block turns its
input around for the shortcut while training, which costs a UNet on a CPU about a twentieth of its step. Its own
upsampling does so for batches of 64 and more, because of faults in kernels that were repaired long ago, which gives
tensors other strides there. On a GPU its own transformer brings the tokens back to NCHW, and the next block turns the
map again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention as DiffusersAttention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.layers import (
    Attend,
    NormOut,
    TokenNorm,
    as_map,
    channels_last,
    conv_group_norm,
    group_norm,
    projected,
    upsampled,
)
from diffusion_art.models.backbone import Backbone
from diffusion_art.models.size_embedding import SizeEmbedding
from diffusion_art.models.unet_settings import check, heads_of
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
        check(sample_size, sides, attends, block_channels, attention_sides, norm_groups)

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


# ---------------------------------------------------------------------- its blocks


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
