"""Captions encoded once: the engine meets the same words, and above all the same empty caption, again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch

from diffusion_art.tensors import Conditioning


class EncodedCaptions:
    """The last `limit` captions' conditionings, one row each.

    Captions are encoded one at a time, so that what a caption becomes does not depend on its company.
    """

    def __init__(self, encode: Callable[[list[str]], Conditioning], *, limit: int = 4096) -> None:
        self.encode = encode
        self.limit = limit
        self.hits = self.misses = 0
        self._rows: OrderedDict[str, Conditioning] = OrderedDict()

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """One row per caption, padded to the longest."""
        return Conditioning.cat([self._row(caption) for caption in captions])

    def warm(self, captions: Iterable[str]) -> None:
        for caption in captions:
            self._row(caption)

    def _row(self, caption: str) -> Conditioning:
        row = self._rows.get(caption)
        if row is None:
            self.misses += 1
            with torch.no_grad():
                row = self._rows[caption] = self.encode([caption])
            if len(self._rows) > self.limit:
                self._rows.popitem(last=False)
        else:
            self.hits += 1
            self._rows.move_to_end(caption)
        return row
