"""Frozen text towers: what they said of the first captions is remembered on their device."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diffusion_art.devices import computes_in_bf16
from diffusion_art.errors import UserError
from diffusion_art.models.caption_cache import CaptionCache, Encoded
from diffusion_art.models.text import TextEncoder
from diffusion_art.models.tokenizer import mask_of, round_up
from diffusion_art.models.weights_hash import see_weights
from diffusion_art.tensors import Conditioning, sent

CHUNK = 8  # captions a frozen tower reads at a time on a CPU, always as many: the same shapes give the same bits


@runtime_checkable
class Tokenizer(Protocol):
    """Captions to ids, cut to what the tower reads."""

    context_length: int
    pad_id: int
    truncated: int

    def ids(self, caption: str) -> list[int]: ...


class FrozenTextEncoder(TextEncoder):
    """A frozen tower, the first captions read once and remembered.

    The tower is not a submodule: it follows the device, but optimisers, averages and checkpoints never see it.
    `describe()` holds the hash of its weights, by which a checkpoint knows its tower again.

    On a CPU captions are read in chunks of a fixed shape, so the values do not depend on the batch, on the cache or on
    the precision of training, to the bit. A CUDA device reads all new captions of a batch at once, padded to the
    longest: there a value depends on the batch by the rounding of the tower's precision, and no answer leaves the
    device. `precision` is `auto`, which is bf16 on a CUDA device that computes in it and fp32 elsewhere, or the one
    that the tower was loaded in. What comes out is float32 in any case.

    Raises:
        UserError: a cache of fewer than no captions.
    """

    trainable = False
    tower: nn.Module
    trims = True  # whether a caption means the same with less padding after it

    def __init__(self, tower: nn.Module, *, tokenizer: Tokenizer, precision: str, cache_captions: int) -> None:
        super().__init__()
        if cache_captions < 0:
            raise UserError(
                f"cache_captions={cache_captions} is not a number of captions; 0 remembers none: "
                "model.text_encoder.cache_captions=0"
            )
        object.__setattr__(self, "tower", tower)  # past nn.Module's registry
        self.precision = precision
        self._in_bf16: dict[str, Tensor] | None = None
        self.context_length = tokenizer.context_length
        self.tokenizer = tokenizer
        self.cache = CaptionCache(most=cache_captions)

    @abstractmethod
    def answer(
        self, ids: Int[Tensor, "m l"], mask: Bool[Tensor, "m l"], weights: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "m l d"], Float[Tensor, "m p"]]:
        """Token states, of which those of padding mean nothing, and pooled vectors; `weights` stand in for its own."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenTextEncoder:
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
            return self._ask(rows, round_up(longest, self.context_length) if self.trims else self.context_length)
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
        mask = mask_of(torch.tensor([len(row) for row in rows]), length)
        with torch.autocast(self._device.type, enabled=False):
            return self.answer(sent(ids, self._device), sent(mask, self._device), self._weights)

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
        return next(self.tower.parameters()).device

    @property
    def truncated(self) -> int:
        return self.tokenizer.truncated

    @cached_property
    def sha256(self) -> str:
        """Of the tower's weights, names and values."""
        return digest_of(self.tower).hexdigest()


def digest_of(tower: nn.Module) -> Any:
    """A sha256 that has seen a tower's weights, names and values in float32."""
    digest = hashlib.sha256()
    see_weights(digest, tower)
    return digest


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
