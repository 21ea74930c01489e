"""Captions to token ids with CLIP's byte-pair encoding, and an honest count of what did not fit."""

from __future__ import annotations

import logging
from array import array
from functools import cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from diffusion_art.models.bpe import BytePairEncoding

log = logging.getLogger(__name__)

SPECIAL_TOKENS = 2  # start and end of text
REMEMBERED = 2**18  # captions whose ids are kept, the first ones; about 300 bytes each


class ClipTokenizer:
    """Start of text, the caption, end of text; at most `context_length` ids, the end never cut off.

    `vocab_size` keeps only the first merges of CLIP's byte-pair encoding, which are the commonest: rare words
    come out in more pieces, nothing is unknown, and an embedding table stays small.

    `truncated` counts the distinct captions that did not fit; the 1st, 10th, 100th, ... of them is logged.
    """

    pad_id = 0

    def __init__(self, *, context_length: int, vocab_size: int | None = None):
        self.bpe = _encoding(vocab_size)
        self.context_length = context_length
        self.vocab_size = self.bpe.vocab_size
        self.truncated = 0
        self._known: dict[str, array[int]] = {}  # two bytes an id, of which CLIP has 49,408

    def ids(self, caption: str) -> list[int]:
        """Token ids of one caption, cut to the context length."""
        known = self._known.get(caption)
        if known is not None:
            return known.tolist()
        ids = self._encode(caption)
        if len(self._known) < REMEMBERED:
            self._known[caption] = array("H", ids)
        return ids

    def __call__(self, captions: list[str]) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
        """Ids padded to the longest caption, rounded up to a multiple of 8; mask is True on real tokens."""
        rows = [self.ids(caption) for caption in captions]
        lengths = [len(row) for row in rows]
        length = round_up(max(lengths), self.context_length)
        ids = torch.tensor([row + [self.pad_id] * (length - len(row)) for row in rows])
        return ids, mask_of(torch.tensor(lengths), length)

    def words(self, caption: str) -> list[tuple[str, slice]]:
        """The words of a caption as they are read, and where the tokens of each stand among its `ids`.

        Marks between words, such as a comma, count as words; one that was cut off is left out.
        """
        found, start = [], 1
        ids = self.ids(caption)[1:-1]
        for place, part in enumerate(ids, 2):
            if self.bpe.ends_word(part):
                found.append((self.bpe.text(ids[start - 1 : place - 1]), slice(start, place)))
                start = place
        return found

    def _encode(self, caption: str) -> list[int]:
        words = self.bpe.encode(caption)
        room = self.context_length - SPECIAL_TOKENS
        if len(words) > room:
            self.truncated = report_truncation(
                self.truncated, caption, len(words) + SPECIAL_TOKENS, self.context_length
            )
        return [self.bpe.start_id, *words[:room], self.bpe.end_id]


def round_up(length: int, context_length: int) -> int:
    """The next multiple of 8 within the context: few lengths keep kernels and graphs few."""
    return min(context_length, -(-length // 8) * 8)


def mask_of(lengths: Int[Tensor, " b"], length: int) -> Bool[Tensor, "b {length}"]:
    """True where a token is real, for rows of these lengths."""
    return torch.arange(length)[None, :] < lengths[:, None]


def report_truncation(count: int, caption: str, tokens: int, context_length: int) -> int:
    """Count one more caption that was cut; say so for the 1st, 10th, 100th, ... Its words are for debugging only: where
    people ask for pictures, they are theirs.
    """
    count += 1
    if str(count).strip("0") == "1":
        log.warning(
            "%d caption(s) so far have more tokens than the text encoder reads; the rest of each is ignored. "
            "The last one has %d tokens of at most %d",
            count,
            tokens,
            context_length,
        )
        log.debug("it reads: %s", caption if len(caption) <= 80 else f"{caption[:77]}...")
    return count


@cache
def _encoding(vocab_size: int | None) -> BytePairEncoding:
    """Each encoding once: they do not change."""
    return BytePairEncoding(vocab_size)
