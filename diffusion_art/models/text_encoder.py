"""Text encoders: captions -> token states for cross-attention and one pooled vector for the time embedding.

Others stand in `transformers_text.py` and `text_pair.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from diffusion_art.accel.layers import few_tokens
from diffusion_art.models.frozen_text import FrozenTextEncoder
from diffusion_art.models.text import TextEncoder
from diffusion_art.models.tokenizer import ClipTokenizer
from diffusion_art.tensors import Conditioning, sent

CAPTION_BYTES = 60_000  # what `cache_mb` counted a caption of ViT-B-32 as


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
    outer = ("token_embedding", "positional_embedding")

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
        return self(sent(ids, device), sent(mask, device))

    def forward(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Conditioning:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(~mask, float("-inf"))
        with few_tokens(x.device):
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
        self.hidden = hidden
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


class OpenClipPretrained(FrozenTextEncoder):
    """The frozen text tower of an open_clip model; how captions are read and remembered is said in `frozen_text.py`.

    Token states come out of the last LayerNorm, the pooled vector from CLIP's own projection. `model` is an open_clip
    name with a tag or file as `pretrained`, or `hf-hub:ORG/REPO`, or `local-dir:FOLDER`, which may be a run of
    `+experiment=clip`. `precision` is `auto` or one of open_clip's: fp32, bf16 or fp16.

    `cache_captions` are remembered on the tower's device: of ViT-B-32, a caption of 25 tokens takes 26 kB there in
    bf16 and 53 kB in float32. `cache_mb`, which checkpoints of earlier versions have in its place, is counted in
    captions of 60 kB.

    Paper: Radford et al. 2021, https://arxiv.org/abs/2103.00020

    Raises:
        UserError: an unknown model or tag, or weights that cannot be had, with the ways to get them; a cache of fewer
            than no captions.
    """

    @classmethod
    def reachable(cls, settings: Mapping[str, Any]) -> bool:
        from diffusion_art.models.open_clip_weights import weights_reachable  # open_clip takes three seconds to import

        return weights_reachable(settings["model"], settings["pretrained"])

    @classmethod
    def called(cls, settings: Mapping[str, Any]) -> str:
        return f"open_clip {settings['model']} / {settings['pretrained']}"

    def __init__(
        self,
        *,
        model: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        precision: str = "auto",
        cache_captions: int = 16384,
        cache_mb: int | None = None,
    ):
        from diffusion_art.models.open_clip_weights import load_text_tower  # open_clip takes three seconds to import

        if cache_mb is not None:
            cache_captions = cache_mb * 2**20 // CAPTION_BYTES
        tower = load_text_tower(model, pretrained, precision="fp32" if precision == "auto" else precision)
        tokenizer = ClipTokenizer(context_length=tower.context_length)
        super().__init__(tower, tokenizer=tokenizer, precision=precision, cache_captions=cache_captions)
        self.model = model
        self.pretrained = pretrained
        self.dim = tower.width
        self.pooled_dim = tower.output_dim or tower.width
        self.trims = tower.attn_mask is not None and tower.pool_type in ("argmax", "eos")  # later tokens unseen

    def answer(
        self, ids: Int[Tensor, "m l"], mask: Bool[Tensor, "m l"], weights: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "m l d"], Float[Tensor, "m p"]]:
        tower: Any = self.tower
        length = ids.shape[1]
        if length < self.context_length and tower.attn_mask is not None:
            weights = {**weights, "attn_mask": tower.attn_mask[:length, :length]}
        pooled, tokens = functional_call(self.tower, weights, ids) if weights else self.tower(ids)
        return tokens, pooled

    def describe(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "model": self.model,
            "pretrained": self.pretrained,
            "sha256": self.sha256,
        }
