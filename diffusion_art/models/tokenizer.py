"""Captions to token ids with CLIP's byte-pair encoding, and an honest count of what did not fit."""

from __future__ import annotations

import logging
from copy import copy
from functools import cache

import torch
from jaxtyping import Bool, Int
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from diffusion_art.errors import UserError

log = logging.getLogger(__name__)

BYTE_TOKENS = 512  # CLIP's vocabulary opens with 256 bytes, each as a word's middle and as its end
SPECIAL_TOKENS = 2  # start and end of text, the last two ids
REMEMBERED = 2**16  # captions whose ids are kept


class ClipTokenizer:
    """Start of text, the caption, end of text; at most `context_length` ids, the end never cut off.

    `vocab_size` keeps only the first merges of CLIP's byte-pair encoding, which are the commonest: rare words
    come out in more pieces, nothing is unknown, and an embedding table stays small.

    `truncated` counts the distinct captions that did not fit; the 1st, 10th, 100th, ... of them is logged.
    """

    pad_id = 0

    def __init__(self, *, context_length: int, vocab_size: int | None = None):
        self.bpe = copy(_clip_bpe())
        if vocab_size is not None:
            _keep_first_merges(self.bpe, vocab_size)
        self.context_length = context_length
        self.vocab_size = self.bpe.vocab_size
        self.truncated = 0
        self._known: dict[str, list[int]] = {}

    def ids(self, caption: str) -> list[int]:
        """Token ids of one caption, cut to the context length."""
        if caption not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[caption] = self._encode(caption)
        return self._known[caption]

    def __call__(self, captions: list[str]) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
        """Ids padded to the longest caption, rounded up to a multiple of 8; mask is True on real tokens."""
        rows = [self.ids(caption) for caption in captions]
        lengths = torch.tensor([len(row) for row in rows])
        length = round_up(int(lengths.max()), self.context_length)
        ids = torch.tensor([row + [self.pad_id] * (length - len(row)) for row in rows])
        return ids, mask_of(lengths, length)

    def _encode(self, caption: str) -> list[int]:
        words = self.bpe.encode(caption)
        room = self.context_length - SPECIAL_TOKENS
        if len(words) > room:
            self.truncated = report_truncation(
                self.truncated, caption, len(words) + SPECIAL_TOKENS, self.context_length
            )
        return [self.bpe.sot_token_id, *words[:room], self.bpe.eot_token_id]


def round_up(length: int, context_length: int) -> int:
    """The next multiple of 8 within the context: few lengths keep kernels and graphs few."""
    return min(context_length, -(-length // 8) * 8)


def mask_of(lengths: Int[Tensor, " b"], length: int) -> Bool[Tensor, "b {length}"]:
    """True where a token is real, for rows of these lengths."""
    return torch.arange(length)[None, :] < lengths[:, None]


def report_truncation(count: int, caption: str, tokens: int, context_length: int) -> int:
    """Count one more caption that was cut; say so for the 1st, 10th, 100th, ..."""
    count += 1
    if str(count).strip("0") == "1":
        log.warning(
            "%d caption(s) so far have more tokens than the text encoder reads; the rest of each is ignored. "
            "The last one has %d tokens of at most %d: %s",
            count,
            tokens,
            context_length,
            caption if len(caption) <= 80 else f"{caption[:77]}...",
        )
    return count


@cache
def _clip_bpe() -> SimpleTokenizer:
    """CLIP's own encoding, read once: unpacking its 49 thousand merges takes longer than a small model."""
    return SimpleTokenizer()


def _keep_first_merges(bpe: SimpleTokenizer, vocab_size: int) -> None:
    """Shrink an open_clip tokenizer to `vocab_size` ids; the two special tokens stay the last two."""
    words = vocab_size - SPECIAL_TOKENS
    if not BYTE_TOKENS <= words <= len(bpe.encoder) - SPECIAL_TOKENS:
        smallest = BYTE_TOKENS + SPECIAL_TOKENS
        raise UserError(
            f"vocab_size={vocab_size} is not possible: CLIP's byte-pair encoding has {smallest} to "
            f"{len(bpe.encoder)} ids. Set model.text_encoder.vocab_size within these, such as 4096."
        )
    special = bpe.all_special_ids
    names = [bpe.decoder[i] for i in special]
    bpe.bpe_ranks = {merge: rank for merge, rank in bpe.bpe_ranks.items() if rank < words - BYTE_TOKENS}
    bpe.encoder = {token: i for token, i in bpe.encoder.items() if i < words}
    bpe.encoder.update({name: words + place for place, name in enumerate(names)})
    bpe.decoder = {i: token for token, i in bpe.encoder.items()}
    bpe.all_special_ids = [bpe.encoder[name] for name in names]
    bpe.sot_token_id, bpe.eot_token_id = bpe.all_special_ids
    bpe.vocab_size = len(bpe.encoder)
    bpe.cache = {name: name for name in names}  # of words already split, by the merges they were split with
