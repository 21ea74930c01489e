"""Text encoders: captions -> token states for cross-attention and one pooled vector for the time embedding.

`""` is the caption of no caption: what training shows in place of a dropped caption, and what guidance
compares with. Padding is masked, so a caption's conditioning does not depend on its batch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from diffusion_art.accel.text_attention import few_tokens
from diffusion_art.devices import computes_in_bf16
from diffusion_art.errors import UserError
from diffusion_art.models.caption_cache import CaptionCache, Encoded
from diffusion_art.models.tokenizer import ClipTokenizer, round_up
from diffusion_art.tensors import Conditioning
from diffusion_art.transfers import sent

if TYPE_CHECKING:
    from open_clip.transformer import TextTransformer

CHUNK = 8  # captions a frozen tower reads at a time on a CPU, always as many: the same shapes give the same bits
CAPTION_BYTES = 60_000  # what `cache_mb` counted a caption of ViT-B-32 as


class TextEncoder(nn.Module, ABC):
    """What `TextToImage` asks of a text encoder."""

    dim: int  # of a token state
    pooled_dim: int  # of the pooled vector
    context_length: int  # tokens it reads; a longer caption is cut, counted and reported
    trainable: bool  # False: frozen, its weights stay out of checkpoints, averages and optimisers
    outer: ClassVar[tuple[str, ...]] = ()  # its look-up tables, which Muon leaves to AdamW

    @classmethod
    def reachable(cls, settings: Mapping[str, Any]) -> bool:
        """Whether the weights that it starts from can be had here, of one with these settings. Asked before it is made,
        where a run knows another encoder to go on with.
        """
        return True

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


class OpenClipPretrained(TextEncoder):
    """The frozen text tower of a pretrained open_clip model, the first captions read once and remembered.

    Token states come out of the last LayerNorm, the pooled vector from CLIP's own projection. The tower is
    not a submodule: it follows the device, but optimisers, averages and checkpoints never see it.
    `describe()` holds the hash of its weights, by which a checkpoint knows its tower again.

    On a CPU captions are read in chunks of a fixed shape, so the values do not depend on the batch, on the cache or on
    the precision of training, to the bit. A CUDA device reads all new captions of a batch at once, padded to the
    longest: there a value depends on the batch by the rounding of the tower's precision, and no answer leaves the
    device. `precision` is `auto`, which is bf16 on a CUDA device that computes in it and fp32 elsewhere, or one of
    open_clip's: fp32, bf16 or fp16. What comes out is float32 in any case.

    `cache_captions` are remembered on the tower's device: of ViT-B-32, a caption of 25 tokens takes 26 kB there in
    bf16 and 53 kB in float32. `cache_mb`, which checkpoints of earlier versions have in its place, is counted in
    captions of 60 kB.

    Paper: Radford et al. 2021, https://arxiv.org/abs/2103.00020

    Raises:
        UserError: an unknown model or tag, or weights that cannot be had, with the ways to get them; a cache of fewer
            than no captions.
    """

    trainable = False
    tower: TextTransformer

    @classmethod
    def reachable(cls, settings: Mapping[str, Any]) -> bool:
        from diffusion_art.models.open_clip_weights import weights_reachable  # open_clip takes three seconds to import

        return weights_reachable(settings["model"], settings["pretrained"])

    def __init__(
        self,
        *,
        model: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        precision: str = "auto",
        cache_captions: int = 16384,
        cache_mb: int | None = None,
    ):
        super().__init__()
        from diffusion_art.models.open_clip_weights import load_text_tower  # open_clip takes three seconds to import

        if cache_mb is not None:
            cache_captions = cache_mb * 2**20 // CAPTION_BYTES
        if cache_captions < 0:
            raise UserError(
                f"cache_captions={cache_captions} is not a number of captions; 0 remembers none: "
                "model.text_encoder.cache_captions=0"
            )
        self.model = model
        self.pretrained = pretrained
        self.precision = precision
        tower = load_text_tower(model, pretrained, precision="fp32" if precision == "auto" else precision)
        object.__setattr__(self, "tower", tower)  # past nn.Module's registry
        self._in_bf16: dict[str, Tensor] | None = None
        self.dim = tower.width
        self.pooled_dim = tower.output_dim or tower.width
        self.context_length = tower.context_length
        self.tokenizer = ClipTokenizer(context_length=tower.context_length)
        self.cache = CaptionCache(most=cache_captions)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OpenClipPretrained:
        self.tower._apply(fn, recurse)
        self._in_bf16 = None
        self.cache.clear()
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def encode(self, captions: list[str]) -> Conditioning:
        with torch.inference_mode(mode=False):  # or what is remembered in validation could not be added to in training
            return self._encode(captions)

    def _encode(self, captions: list[str]) -> Conditioning:
        ids = {caption: self.tokenizer.ids(caption) for caption in captions}
        places = {caption: (0, *place) for caption in ids if (place := self.cache.place(caption))}
        missing = {caption: row for caption, row in ids.items() if caption not in places}
        sources: list[Encoded] = [self.cache.encoded] if places and self.cache.encoded else []
        fresh = self._read(list(missing.values())) if missing else None
        if fresh is not None:
            tokens, pooled = fresh
            places |= {c: (len(sources), row * tokens.shape[1], row) for row, c in enumerate(missing)}
            sources.append(Encoded(tokens.flatten(0, 1), pooled))
        cond = _gathered(sources, [(*places[c], len(ids[c])) for c in captions], context_length=self.context_length)
        if fresh is not None:
            self.cache.keep(list(missing), [len(row) for row in missing.values()], *fresh)
        return cond

    def _read(self, rows: list[list[int]]) -> tuple[Float[Tensor, "m l d"], Float[Tensor, "m p"]]:
        """The tower's answer to captions of these ids, on its device; states of padding mean nothing."""
        if self._device.type == "cuda":
            longest = max(len(row) for row in rows)
            trims = self.tower.attn_mask is not None and self.tower.pool_type in (
                "argmax",
                "eos",
            )  # later tokens unseen
            return self._ask(rows, round_up(longest, self.context_length) if trims else self.context_length)
        empty = self.tokenizer.ids("")
        answers = []
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            tokens, pooled = self._ask(chunk + [empty] * (CHUNK - len(chunk)), self.context_length)
            answers.append((tokens[: len(chunk)], pooled[: len(chunk)]))
        all_tokens, all_pooled = zip(*answers)
        return torch.cat(all_tokens), torch.cat(all_pooled)

    def _ask(self, rows: list[list[int]], length: int) -> tuple[Float[Tensor, "m l d"], Float[Tensor, "m p"]]:
        ids = torch.tensor([row + [self.tokenizer.pad_id] * (length - len(row)) for row in rows])
        instead = self._weights
        if length < self.context_length and self.tower.attn_mask is not None:
            instead = {**instead, "attn_mask": self.tower.attn_mask[:length, :length]}
        with torch.autocast(self._device.type, enabled=False):
            ids = sent(ids, self._device)
            pooled, tokens = functional_call(self.tower, instead, ids) if instead else self.tower(ids)
        return tokens, pooled

    @property
    def _weights(self) -> dict[str, Tensor]:
        """What stands in for the tower's own weights while it reads: on a CUDA device their values in bf16."""
        if self.precision != "auto" or self._device.type != "cuda" or not computes_in_bf16(self._device):
            return {}
        if self._in_bf16 is None:
            self._in_bf16 = {name: weight.to(torch.bfloat16) for name, weight in self.tower.named_parameters()}
        return self._in_bf16

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


def _gathered(sources: list[Encoded], places: list[tuple[int, int, int, int]], *, context_length: int) -> Conditioning:
    """The rows of a batch from one or two sources; a place is the source's number, where the caption's states begin,
    its row of `pooled` and how many tokens it has.
    """
    device = sources[0].pooled.device
    length = round_up(max(tokens for *_, tokens in places), context_length)
    source, starts, rows, lengths = sent(torch.tensor(places).T.contiguous(), device)
    mask = torch.arange(length, device=device) < lengths[:, None]
    tokens, pooled = sources[0].gather(*_rows_of(0, source, starts, rows, mask))
    for number, encoded in enumerate(sources[1:], 1):
        more_tokens, more_pooled = encoded.gather(*_rows_of(number, source, starts, rows, mask))
        tokens = torch.where(source[:, None, None] == number, more_tokens, tokens)
        pooled = torch.where(source[:, None] == number, more_pooled, pooled)
    return Conditioning(tokens.float(), mask, pooled.float())


def _rows_of(
    number: int,
    source: Int[Tensor, " b"],
    starts: Int[Tensor, " b"],
    rows: Int[Tensor, " b"],
    mask: Bool[Tensor, "b l"],
) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"], Bool[Tensor, "b l"]]:
    """Where to look in one source; the rows of others look at its first."""
    here = source == number
    return starts * here, rows * here, mask & here[:, None]
