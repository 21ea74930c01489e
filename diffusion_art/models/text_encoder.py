"""Text encoders: captions -> token states for cross-attention and one pooled vector for the time embedding.

`""` is the caption of no caption: what training shows in place of a dropped caption, and what guidance
compares with. Padding is masked, so a caption's conditioning does not depend on its batch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence

from diffusion_art.models.caption_cache import CaptionCache, Encoded
from diffusion_art.models.tokenizer import ClipTokenizer, mask_of, round_up
from diffusion_art.tensors import Conditioning

if TYPE_CHECKING:
    from open_clip.transformer import TextTransformer

CHUNK = 8  # captions a frozen tower reads at a time, always as many: the same shapes give the same bits


class TextEncoder(nn.Module, ABC):
    """What `TextToImage` asks of a text encoder."""

    dim: int  # of a token state
    pooled_dim: int  # of the pooled vector
    context_length: int  # tokens it reads; a longer caption is cut, counted and reported
    trainable: bool  # False: frozen, its weights stay out of checkpoints, averages and optimisers

    @abstractmethod
    def encode(self, captions: list[str]) -> Conditioning:
        """One row per caption, padded to the longest, rounded up to a multiple of 8 tokens."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Who it is, as plain data for a checkpoint."""

    @property
    @abstractmethod
    def truncated(self) -> int:
        """How many distinct captions did not fit so far."""


class OpenClipScratch(TextEncoder):
    """A small text tower of CLIP's pre-norm blocks, named as open_clip names them, trained together with the backbone.

    It reads both ways, with padding masked. Token states come out of the last LayerNorm. The pooled vector is
    the mean of the real tokens' states, normed again and projected: a bag of words from the first step on,
    which is how style and palette reach the backbone long before cross-attention has learned where to look.

    Embeddings start small and the blocks' branches smaller still, so that the words themselves show through
    untrained blocks and move far in few steps: after 30 steps at a rate of 1e-3, both colours of a painter's
    caption can be read off the pooled vector twice as often as with embeddings of unit scale.
    """

    trainable = True

    def __init__(
        self,
        *,
        width: int = 192,
        layers: int = 2,
        heads: int = 3,
        mlp_ratio: float = 2.0,
        vocab_size: int = 4096,
        context_length: int = 64,
        pooled_dim: int | None = None,
    ):
        super().__init__()
        self.dim = width
        self.pooled_dim = pooled_dim or width
        self.context_length = context_length
        self.heads = heads
        self.tokenizer = ClipTokenizer(context_length=context_length, vocab_size=vocab_size)
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.ModuleList(PreNormBlock(width, heads, int(width * mlp_ratio)) for _ in range(layers))}
        )
        self.ln_final = nn.LayerNorm(width)
        self.ln_pooled = nn.LayerNorm(width)
        self.pooled_projection = nn.Linear(width, self.pooled_dim)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.token_embedding.weight, std=0.1)
        nn.init.normal_(self.positional_embedding, std=0.02)
        block: Any
        for block in self.blocks:
            nn.init.normal_(block.attn.out_proj.weight, std=0.1 * self.dim**-0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=0.1 * block.mlp.c_proj.in_features**-0.5)

    def encode(self, captions: list[str]) -> Conditioning:
        ids, mask = self.tokenizer(captions)
        device = self.positional_embedding.device
        return self(ids.to(device), mask.to(device))

    def forward(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Conditioning:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(~mask, float("-inf"))
        # few tokens: the plain formula is about twice as fast on a CPU as the fused kernel, backward included
        with sdpa_kernel(SDPBackend.MATH) if x.device.type == "cpu" else nullcontext():
            bias = repeat(bias, "b l -> (b h) q l", h=self.heads, q=ids.shape[1])
            for block in self.blocks:
                x = block(x, bias)
        tokens = self.ln_final(x)
        return Conditioning(tokens, mask, self._pool(tokens, mask))

    @property
    def blocks(self) -> list[PreNormBlock]:
        return list(self.transformer["resblocks"])  # type: ignore[arg-type]

    def _pool(self, tokens: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b p"]:
        real = mask[..., None].to(tokens.dtype)
        mean = (tokens * real).sum(1) / real.sum(1)
        return self.pooled_projection(self.ln_pooled(mean))

    @property
    def truncated(self) -> int:
        return self.tokenizer.truncated

    def describe(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "width": self.dim,
            "layers": len(self.blocks),
            "vocab_size": self.tokenizer.vocab_size,
            "context_length": self.context_length,
        }


class PreNormBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): a transformer's block with the norms inside the branches.

    Paper: Xiong et al. 2020, https://arxiv.org/abs/2002.04745
    """

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, hidden), "gelu": nn.GELU(), "c_proj": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Float[Tensor, "b l d"], bias: Float[Tensor, "bh l l"]) -> Float[Tensor, "b l d"]:
        """`bias` is added to the scores of each caption's heads: -inf where a token is not to be seen."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=bias)[0]
        return x + self.mlp(self.ln_2(x))


class OpenClipPretrained(TextEncoder):
    """The frozen text tower of a pretrained open_clip model, each caption read once and remembered.

    Token states come out of the last LayerNorm, the pooled vector from CLIP's own projection. The tower is
    not a submodule: it follows the device, but optimisers, averages and checkpoints never see it.
    `describe()` holds the hash of its weights, by which a checkpoint knows its tower again.

    Captions are read in chunks of a fixed shape and outside autocast, so the values do not depend on the
    batch, on the cache or on the precision of training. `cache_mb` bounds the memory of remembered captions;
    one takes about 60 kB with ViT-B-32. `precision` is open_clip's: fp32, bf16 or fp16; what comes out is
    float32 in any case.

    Paper: Radford et al. 2021, https://arxiv.org/abs/2103.00020

    Raises:
        UserError: an unknown model or tag, or weights that cannot be had, with the ways to get them.
    """

    trainable = False
    tower: TextTransformer

    def __init__(
        self,
        *,
        model: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        precision: str = "fp32",
        cache_mb: int = 1024,
    ):
        super().__init__()
        from diffusion_art.models.open_clip_weights import load_text_tower  # open_clip takes three seconds to import

        self.model = model
        self.pretrained = pretrained
        tower = load_text_tower(model, pretrained, precision=precision)
        object.__setattr__(self, "tower", tower)  # past nn.Module's registry
        self.dim = tower.width
        self.pooled_dim = tower.output_dim or tower.width
        self.context_length = tower.context_length
        self.tokenizer = ClipTokenizer(context_length=tower.context_length)
        self.cache = CaptionCache(max_bytes=cache_mb * 2**20)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OpenClipPretrained:
        self.tower._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def encode(self, captions: list[str]) -> Conditioning:
        found = {caption: self.cache.get(caption) for caption in captions}
        missing = [caption for caption, encoded in found.items() if encoded is None]
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            for caption, encoded in zip(chunk, self._read(chunk)):
                found[caption] = encoded
                self.cache.put(caption, encoded)
        tokens, pooled = zip(*(found[caption] for caption in captions))
        lengths = torch.tensor([len(states) for states in tokens])
        longest = int(lengths.max())
        states = pad_sequence(list(tokens), batch_first=True)
        cond = Conditioning(states, mask_of(lengths, longest), torch.stack(pooled))
        return cond.pad_to(round_up(longest, self.context_length)).to(self._device)

    def _read(self, captions: list[str]) -> list[Encoded]:
        """The tower's answer to at most CHUNK captions, on the CPU, without padding."""
        rows = [self.tokenizer.ids(caption) for caption in captions]
        filled = rows + [self.tokenizer.ids("")] * (CHUNK - len(rows))
        ids = torch.tensor([row + [self.tokenizer.pad_id] * (self.context_length - len(row)) for row in filled])
        with torch.autocast(self._device.type, enabled=False):
            pooled, tokens = self.tower(ids.to(self._device))
        tokens, pooled = tokens.float().cpu(), pooled.float().cpu()
        return [(tokens[i, : len(row)].clone(), pooled[i].clone()) for i, row in enumerate(rows)]

    @property
    def _device(self) -> torch.device:
        return self.tower.positional_embedding.device

    @property
    def truncated(self) -> int:
        return self.tokenizer.truncated

    @cached_property
    def sha256(self) -> str:
        """Of the tower's weights, names and values."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.tower.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "model": self.model,
            "pretrained": self.pretrained,
            "sha256": self.sha256,
        }
