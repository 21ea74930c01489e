"""Captions encoded once: the engine meets the same words, and above all the same empty caption, again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch

from diffusion_art.tensors import Conditioning

MAX_BYTES = 64 * 2**20


class EncodedCaptions:
    """The conditionings, one row each, of the captions used last, as many as `max_bytes` hold.

    Captions are encoded one at a time, so that what a caption becomes does not depend on its company.
    """

    def __init__(self, encode: Callable[[list[str]], Conditioning], *, max_bytes: int = MAX_BYTES) -> None:
        self.encode = encode
        self.max_bytes = max_bytes
        self.bytes = 0
        self._rows: OrderedDict[str, Conditioning] = OrderedDict()

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """One row per caption, padded to the longest."""
        different = list(dict.fromkeys(captions))
        rows = torch.tensor([different.index(caption) for caption in captions])
        return Conditioning.cat([self._row(caption) for caption in different])[rows]

    def warm(self, captions: Iterable[str]) -> None:
        for caption in captions:
            self._row(caption)

    def _row(self, caption: str) -> Conditioning:
        row = self._rows.get(caption)
        if row is None:
            with torch.no_grad():
                row = self._rows[caption] = self.encode([caption])
            self.bytes += _bytes(caption, row)
            while self.bytes > self.max_bytes:
                self.bytes -= _bytes(*self._rows.popitem(last=False))
        else:
            self._rows.move_to_end(caption)
        return row


def _bytes(caption: str, row: Conditioning) -> int:
    return 4 * len(caption) + row.tokens.nbytes + row.mask.nbytes + row.pooled.nbytes
