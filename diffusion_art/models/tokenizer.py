"""Captions to token ids with CLIP's byte-pair encoding, and an honest count of what did not fit.

The encoding turns text into ids of subwords, by CLIP's 48,894 merges or only the first of them. Text is repaired,
lowercased and split where letters, digits and other characters meet. A word is its UTF-8 bytes, the last one marked; of
all neighbouring parts, those whose merge comes first in CLIP's list are joined, until none is in it.
Ids: 256 bytes within a word, 256 at its end, one for each merge, start of text, end of text.

Papers: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; over bytes, Radford et al. 2019 (GPT-2)

The list is the file that open_clip ships. Its package is not imported: that brings torchvision and timm, which
takes longer than to build and load a small model.
"""

from __future__ import annotations

import gzip
import html
import logging
import unicodedata
from array import array
from collections.abc import Callable, Mapping
from functools import cache, cached_property, lru_cache
from heapq import heapify, heappop, heappush
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import ftfy
import regex
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from diffusion_art.errors import UserError

BYTES = 256
MERGES = 48_894  # that CLIP uses; the file goes on
START, END = "<start_of_text>", "<end_of_text>"
WORD_END = "</w>"
SMALLEST, LARGEST = 2 * BYTES + 2, 2 * BYTES + MERGES + 2
KEPT_WORDS = 2**16
SPECIAL_TOKENS = 2  # start and end of text
REMEMBERED = 2**18  # captions whose ids are kept, the first ones; about 300 bytes each

_WORDS = regex.compile(
    rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
)

log = logging.getLogger(__name__)


class BytePairEncoding:
    """Of `vocab_size` ids: the fewer, the more pieces a rare word comes out in. None: all of CLIP's.

    `ids` has each part of a word and its id.

    Raises:
        UserError: too few ids for all bytes, or more than CLIP has.
    """

    def __init__(self, vocab_size: int | None = None) -> None:
        self.vocab_size = LARGEST if vocab_size is None else vocab_size
        if not SMALLEST <= self.vocab_size <= LARGEST:
            raise UserError(
                f"vocab_size={vocab_size} is not possible: CLIP's byte-pair encoding has {SMALLEST} to {LARGEST} ids. "
                "Set model.text_encoder.vocab_size within these, such as 4096."
            )
        self.start_id, self.end_id = self.vocab_size - 2, self.vocab_size - 1
        self._characters = byte_characters()
        merges = first_merges(self.vocab_size - SMALLEST)
        single = list(self._characters.values())
        parts = [*single, *(each + WORD_END for each in single), *map("".join, merges), START, END]
        self.ids = dict(zip(parts, range(self.vocab_size), strict=True))
        self._rank = {merge: rank for rank, merge in enumerate(merges)}
        self._ids_of_word = lru_cache(KEPT_WORDS)(self._encode_word)

    def __reduce__(self) -> tuple[Callable[..., BytePairEncoding], tuple[int]]:
        """What it kept cannot be pickled, and is made anew."""
        return type(self), (self.vocab_size,)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without start and end."""
        return [part for word in _WORDS.findall(clean(text)) for part in self._ids_of_word(word)]

    def ends_word(self, part: int) -> bool:
        """Whether the part of this id is the last of its word."""
        return self._parts[part].endswith(WORD_END)

    def text(self, ids: list[int]) -> str:
        """What these parts of a word spell; bytes that are no UTF-8 are replaced."""
        spelt = "".join(self._parts[part] for part in ids).removesuffix(WORD_END)
        return bytes(self._bytes[character] for character in spelt).decode("utf-8", "replace")

    @cached_property
    def _parts(self) -> list[str]:
        return list(self.ids)

    @cached_property
    def _bytes(self) -> dict[str, int]:
        return {character: byte for byte, character in self._characters.items()}

    def _encode_word(self, word: str) -> list[int]:
        if word in (START, END):
            return [self.ids[word]]
        parts = [self._characters[byte] for byte in word.encode("utf-8")]
        parts[-1] += WORD_END
        return [self.ids[part] for part in merged(parts, self._rank)]


def merged(parts: list[str], rank: Mapping[tuple[str, str], int]) -> list[str]:
    """Neighbours joined, the pairs of least rank first and from the left, until no pair has a rank.

    A heap of pairs makes it n log n: words of thousands of letters come too, and not by accident.
    """
    parts, end = list(parts), len(parts)
    before, after = list(range(-1, end - 1)), list(range(1, end + 1))

    def rank_at(place: int) -> int | None:
        """Of the pair that begins there; None where none does, or no more."""
        return rank.get((parts[place], parts[after[place]])) if place >= 0 and after[place] < end else None

    pairs = [(found, place) for place in range(end) if (found := rank_at(place)) is not None]
    heapify(pairs)
    while pairs:
        least, grown = pairs[0][0], []
        while pairs and pairs[0][0] == least:
            _, place = heappop(pairs)
            if rank_at(place) != least:  # a neighbour was joined to another meanwhile
                continue
            gone = after[place]
            parts[place], parts[gone], after[place] = parts[place] + parts[gone], "", after[gone]
            if after[place] < end:
                before[after[place]] = place
            grown.append(place)
        for place in grown:
            for first in (before[place], place):
                if (found := rank_at(first)) is not None:
                    heappush(pairs, (found, first))
    return [part for part in parts if part]


def clean(text: str) -> str:
    """Text as CLIP reads it: broken encodings and HTML entities repaired, one space between words, lowercase."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


@cache
def first_merges(count: int) -> list[tuple[str, str]]:
    """The first so many merges of CLIP's list."""
    package = find_spec("open_clip")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        pairs = (line.split() for line in islice(lines, 1, 1 + count))  # the first line names its version
        return [(first, second) for first, second in pairs]


def byte_characters() -> dict[int, str]:
    """A printable character for every byte: the alphabet that the merges are written in, in the order of the ids.

    Bytes that Latin-1 prints stand for themselves and come first; the others are the characters from 256 on.
    """
    printable = {byte: chr(byte) for byte in range(BYTES) if _prints(chr(byte))}
    others = (byte for byte in range(BYTES) if byte not in printable)
    return printable | {byte: chr(BYTES + place) for place, byte in enumerate(others)}


def _prints(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")


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
