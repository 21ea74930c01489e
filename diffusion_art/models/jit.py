"""The other backbone: a plain transformer over patches of pixels, nearly all of it matrix products.

    x = embed(patches of x_t),   c = silu(mlp(t) + linear(pooled)),   [s_1 g_1 a_1 s_2 g_2 a_2] = linear(c) + table_i
    x <- x + a_1 attention(norm(x) (1 + g_1) + s_1),   x <- x + a_2 swiglu(norm(x) (1 + g_2) + s_2)

Paper: Li & He 2025, Back to Basics: Let Denoising Generative Models Denoise (JiT), https://arxiv.org/abs/2511.13720
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion_art.accel.layers import FEW_JOINT, Attend, rms_norm
from diffusion_art.errors import UserError
from diffusion_art.models.backbone import Backbone
from diffusion_art.models.size_embedding import SizeEmbedding
from diffusion_art.tensors import Conditioning

TIME_SCALE = 1000.0  # the sinusoids resolve a clock of 0..1000
TIME_WAVES = 256
ROPE_BASE = 10_000.0
NORM_EPS = 1e-6


class JiT(Backbone):
    """A vision transformer that denoises patches of `patch_size` x `patch_size` positions of x_t.

    Patches come in through a linear bottleneck, since pictures fill few of a patch's dimensions. Blocks are
    pre-norm: RMSNorm, attention with normed queries and keys and 2-D rotary positions, SwiGLU. Time and pooled
    caption scale, shift and gate every block through one shared linear map and a table of each block's own
    (PixArt's adaLN-single), zero at the start. The caption's tokens join the picture's after `context_from`
    blocks, without rotation; padding is never attended to. The last map starts at zero, so an untrained network
    answers zero. With `size_conditioning` an embedding of the latents' sides joins that of the time
    (`size_embedding.py`). With patches of many more dimensions than pictures fill, pair it with `model/prediction=x0`.

    Papers: Li & He 2025 (JiT), https://arxiv.org/abs/2511.13720; Chen et al. 2023 (adaLN-single),
    https://arxiv.org/abs/2310.00426; Heo et al. 2024 (axial rotary positions), https://arxiv.org/abs/2403.13298

    Raises:
        UserError: `sample_size` is no multiple of `patch_size`, `width` none of `head_channels`, or
            `head_channels` none of 4; or no block comes after `context_from`.
    """

    outer = ("patch_embedding", "time_embedding", "pooled_embedding", "caption_embedding", "to_patches")

    def __init__(
        self,
        *,
        channels: int,
        sample_size: int,
        cross_attention_dim: int,
        pooled_dim: int,
        patch_size: int = 2,
        width: int = 256,
        depth: int = 4,
        head_channels: int = 64,
        bottleneck: int = 128,
        mlp_ratio: float = 8 / 3,
        context_from: int = 1,
        size_conditioning: bool = False,
    ):
        super().__init__()
        _check(sample_size, patch_size, width, head_channels, depth, context_from)
        self.channels = channels
        self.sample_size = sample_size
        self.side_multiple = patch_size
        self.cross_attention_dim = cross_attention_dim
        self.pooled_dim = pooled_dim
        self.maps = {"middle": width}
        self.regions = (Block,)
        self.patch_size = patch_size
        self.head_channels = head_channels
        self.context_from = context_from

        patch = channels * patch_size**2
        self.patch_embedding = nn.Sequential(nn.Linear(patch, bottleneck, bias=False), nn.Linear(bottleneck, width))
        self.time_embedding = nn.Sequential(nn.Linear(TIME_WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.pooled_embedding = nn.Linear(pooled_dim, width)
        self.caption_embedding = nn.Linear(cross_attention_dim, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(
            Block(width, head_channels, _multiple_of_32(mlp_ratio * width)) for _ in range(depth)
        )
        self.out_modulation = nn.Linear(width, 2 * width)
        self.to_patches = nn.Linear(width, patch)
        self._initialise()
        self.size_embedding = SizeEmbedding(width, sample_size) if size_conditioning else None

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in (self.modulation, self.out_modulation, self.to_patches):
            nn.init.zeros_(module.weight)

    @property
    def shards(self) -> Sequence[nn.Module]:
        return list(self.blocks)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]:
        return self.with_map(x_t, t, cond, "middle")[0]

    def with_map(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning, place: str
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b m h2 w2"]]:
        """The one place, `middle`: the picture's tokens after half of the blocks."""
        p = self.patch_size
        rows, columns = x_t.shape[2] // p, x_t.shape[3] // p
        x = self.patch_embedding(rearrange(x_t, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p))
        c = self.time_embedding(waves(t * TIME_SCALE).to(x.dtype)) + self.pooled_embedding(cond.pooled)
        c = F.silu(c if self.size_embedding is None else c + self.size_embedding(*x_t.shape[2:]))
        shared = rearrange(self.modulation(c), "b (k d) -> b k 1 d", k=6)
        turn = rotation(rows, columns, self.head_channels, x.device)
        bias, middle = None, x
        for i, block in enumerate(self.blocks):
            if i == self.context_from:
                x = torch.cat([self.caption_embedding(cond.tokens), x], dim=1)
                turn = unrotated_first(turn, cond.tokens.shape[1])
                bias = _bias(cond.mask, rows * columns, x.dtype)
            x = block(x, shared, turn, bias)
            if i + 1 == len(self.blocks) // 2:
                middle = x[:, -rows * columns :]
        x = x[:, -rows * columns :]
        shift, gain = rearrange(self.out_modulation(c), "b (k d) -> k b 1 d", k=2)
        x = self.to_patches(modulate(x, shift, gain))
        out = rearrange(x, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=p, q=p)
        return out, rearrange(middle, "b (h w) d -> b d h w", h=rows)


class Block(nn.Module):
    """Attention and SwiGLU, each between a modulated norm and a gate."""

    outer = ("modulation_embedding", "gains_embedding")

    def __init__(self, width: int, head_channels: int, hidden: int):
        super().__init__()
        self.head_channels = head_channels
        self.modulation_embedding = nn.Parameter(torch.zeros(6, 1, width))  # what this block adds to the shared one
        self.qkv = nn.Linear(width, 3 * width)
        self.gains_embedding = nn.Parameter(torch.ones(2, 1, 1, 1, head_channels))  # of queries and keys
        self.attend = Attend(few=FEW_JOINT)
        self.attention_out = nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, 2 * hidden)
        self.mlp_out = nn.Linear(hidden, width)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        shared: Float[Tensor, "b 6 1 d"],
        rotation: tuple[Tensor, Tensor],
        bias: Float[Tensor, "b 1 1 n"] | None,
    ) -> Float[Tensor, "b n d"]:
        shift_1, gain_1, gate_1, shift_2, gain_2, gate_2 = (shared + self.modulation_embedding.to(shared)).unbind(1)
        x = x + gate_1 * self._attend(modulate(x, shift_1, gain_1), rotation, bias)
        gate, value = self.mlp_in(modulate(x, shift_2, gain_2)).chunk(2, dim=-1)
        return x + gate_2 * self.mlp_out(F.silu(gate) * value)

    def _attend(self, x: Tensor, rotation: tuple[Tensor, Tensor], bias: Tensor | None) -> Tensor:
        qkv = rearrange(self.qkv(x), "b n (k h e) -> k b h n e", k=3, e=self.head_channels)
        q, k = rotate(normed(qkv[:2]) * self.gains_embedding.to(qkv), rotation)
        heads = self.attend(q, k, qkv[2], bias)
        return self.attention_out(rearrange(heads, "b h n e -> b n (h e)"))


def normed(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """x over its root mean square along the last axis (Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467)."""
    return rms_norm(x, eps=NORM_EPS)


def modulate(x: Float[Tensor, "b n d"], shift: Float[Tensor, "b 1 d"], gain: Float[Tensor, "b 1 d"]) -> Tensor:
    return torch.addcmul(shift, normed(x), 1 + gain)


def waves(clock: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
    """Sinusoids of TIME_WAVES / 2 frequencies from 1 down to 1 / 10,000."""
    frequencies = torch.exp(-math.log(10_000.0) * torch.linspace(0, 1, TIME_WAVES // 2, device=clock.device))
    angles = clock.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def rotate(x: Float[Tensor, "*b n e"], rotation: tuple[Tensor, Tensor]) -> Float[Tensor, "*b n e"]:
    """Each pair (x_i, x_{i + e/2}) turned by its position's angle (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([second, first], dim=-1) * sin


def rotation(rows: int, columns: int, head_channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and signed sin [n e] of a grid's angles: half of the pairs turn with the row, half with the column."""
    quarter = head_channels // 4
    frequencies = ROPE_BASE ** -(torch.arange(quarter, device=device) / quarter)
    y = torch.arange(rows, device=device)[:, None, None] * frequencies
    x = torch.arange(columns, device=device)[None, :, None] * frequencies
    angles = torch.cat([y.expand(rows, columns, quarter), x.expand(rows, columns, quarter)], dim=-1).flatten(0, 1)
    return angles.cos().repeat(1, 2), torch.cat([-angles.sin(), angles.sin()], dim=-1)


def unrotated_first(rotation: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    cos, sin = rotation
    return F.pad(cos, (0, 0, count, 0), value=1.0), F.pad(sin, (0, 0, count, 0))


def _bias(mask: Bool[Tensor, "b l"], positions: int, dtype: torch.dtype) -> Float[Tensor, "b 1 1 n"]:
    """What attention adds to its logits: minus infinity on padding, nothing on real tokens and on the picture."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))
    return rearrange(F.pad(bias, (0, positions)), "b n -> b 1 1 n")


def _multiple_of_32(value: float) -> int:
    return max(32, round(value / 32) * 32)


def _check(sample_size: int, patch_size: int, width: int, head_channels: int, depth: int, context_from: int) -> None:
    if sample_size % patch_size:
        raise UserError(
            f"latents of side {sample_size} do not divide into patches of patch_size={patch_size}: choose an image "
            f"size that is a multiple of {patch_size} after the codec, or another model.backbone.patch_size."
        )
    if width % head_channels or head_channels % 4:
        raise UserError(
            f"width={width} does not divide into heads of head_channels={head_channels}, itself a multiple of 4: "
            "set model.backbone.width and model.backbone.head_channels so, such as 256 and 64."
        )
    if not 0 <= context_from < depth:
        raise UserError(
            f"context_from={context_from} leaves none of depth={depth} blocks to read the caption: set "
            "model.backbone.context_from to 0 or more, and below model.backbone.depth."
        )
