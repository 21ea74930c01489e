"""What a frozen text tower said about captions: kept on its device, and put together for a batch by one gather."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion_art.tensors import sent

GROWTH = 1.5  # of the memory, when it is full


@dataclass
class Encoded:
    """Token states of several captions, one caption after the other, and their pooled vectors."""

    tokens: Float[Tensor, "n d"]
    pooled: Float[Tensor, "m p"]

    def gather(
        self, starts: Int[Tensor, " b"], rows: Int[Tensor, " b"], mask: Bool[Tensor, "b l"]
    ) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b p"]]:
        """The captions whose states begin at `starts`, padded with zeros where `mask` is False."""
        steps = torch.arange(mask.shape[1], device=mask.device)
        states = self.tokens[torch.where(mask, starts[:, None] + steps, 0)]
        return states.masked_fill_(~mask[..., None], 0.0), self.pooled[rows]


class CaptionCache:
    """The encodings of the first `most` captions it is given. None is dropped for another.

    An epoch visits each caption once. Where the captions of a data set do not fit, a cache that drops the oldest has
    always just dropped the one that comes next; one that keeps the first is right `most` times an epoch.

    Keys are hashes, so that long captions cost nothing. Values keep their dtype and device, without padding.
    """

    def __init__(self, *, most: int):
        self.most = most
        self.clear()

    def clear(self) -> None:
        """Forget all, as before a move to another device."""
        self._places: dict[bytes, tuple[int, int]] = {}  # where a caption's states begin, and its row of `pooled`
        self._filled = 0  # rows of `tokens`
        self.encoded: Encoded | None = None

    def __len__(self) -> int:
        return len(self._places)

    def place(self, caption: str) -> tuple[int, int] | None:
        """Where the states of a caption begin in `encoded.tokens`, and its row in `encoded.pooled`."""
        return self._places.get(_key(caption))

    def keep(
        self,
        captions: Sequence[str],
        lengths: Sequence[int],
        tokens: Float[Tensor, "m l d"],
        pooled: Float[Tensor, "m p"],
    ) -> None:
        """Add captions that are not here yet, as many as there is room for; `lengths` are those of their tokens."""
        room = min(len(captions), self.most - len(self))
        if room <= 0:
            return
        lengths = lengths[:room]
        flat = [row * tokens.shape[1] + at for row, length in enumerate(lengths) for at in range(length)]
        end = self._filled + len(flat)
        encoded = self._with_room(end, len(self) + room, tokens, pooled)
        encoded.tokens[self._filled : end] = tokens.flatten(0, 1)[sent(torch.tensor(flat), tokens.device)]
        encoded.pooled[len(self) : len(self) + room] = pooled[:room]
        for caption, length in zip(captions, lengths):
            self._places[_key(caption)] = (self._filled, len(self))
            self._filled += length

    def _with_room(self, states: int, captions: int, tokens: Tensor, pooled: Tensor) -> Encoded:
        """The memory, grown where it holds fewer rows."""
        old = self.encoded or Encoded(tokens.new_empty(0, tokens.shape[-1]), pooled.new_empty(0, pooled.shape[-1]))
        self.encoded = Encoded(_grown(old.tokens, states), _grown(old.pooled, captions))
        return self.encoded


def _grown(rows: Float[Tensor, "n d"], count: int) -> Float[Tensor, "m d"]:
    if len(rows) >= count:
        return rows
    larger = rows.new_empty(max(count, int(GROWTH * len(rows))), rows.shape[1])
    larger[: len(rows)] = rows
    return larger


def _key(caption: str) -> bytes:
    return hashlib.blake2b(caption.encode("utf-8", "surrogatepass"), digest_size=16).digest()
