"""The captions of stored samples: made of their columns by another template than at their build, and those to draw from
that their metadata holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion_art.captions.captioner import CAPTIONS, READY, Captioning
from diffusion_art.errors import UserError

if TYPE_CHECKING:
    from diffusion_art.shards.reader import ShardSet

_COLUMNS_OF = 256  # samples that are asked which columns there are, where the manifest does not say
_COUNTED = 20_000  # samples at most that are looked at to see how many have no caption
_REMEMBERED = 2**18  # samples whose captions by another template are kept


def told_template(template: str | None) -> str:
    """What captions by a template are called in a sentence."""
    return "as their source has them" if template is None else template or "none"


class Recaptioner:
    """The captions of a shard set by another `template` than it was built with, made when they are asked for.

    Raises:
        UserError: the template cannot be read, or names a column that the samples do not have.
    """

    def __init__(self, shards: ShardSet, template: str) -> None:
        self.template = template
        self._shards = shards
        try:
            self._captioning = Captioning(template, columns_of(shards) | {"caption"})
        except UserError as error:
            raise UserError(f"{shards.place}: {error}") from None
        self._as_source = shards.manifest.caption_template is None
        self._memo: dict[tuple[str, int], tuple[bytes, ...]] = {}

    def views(self, split: str, samples: np.ndarray, draws: np.ndarray | None) -> list[memoryview | None]:
        """A caption (UTF-8) of each sample: the first, or the one drawn. None where it cannot be read."""
        rolls = [0] * len(samples) if draws is None else (draws >> np.uint64(32)).tolist()
        found: list[memoryview | None] = []
        for sample, roll in zip(samples.tolist(), rolls, strict=True):
            texts = self._memo.get((split, sample)) or self._tell(split, sample)
            found.append(memoryview(texts[roll * len(texts) >> 32]) if texts else None)
        return found

    def texts(self, split: str, sample: int) -> tuple[str, ...]:
        """All captions of a sample. OSError where it cannot be read; ValueError, RecursionError as from `metadata`."""
        metadata = self._shards.metadata(split, sample)
        ready = texts_in(metadata, CAPTIONS if self._as_source else READY)
        if self._as_source:
            metadata.setdefault("caption", str(self._shards.stored_caption(split, sample), "utf-8", "replace"))
        columns = {name: str(value) for name, value in metadata.items() if not isinstance(value, list | dict)}
        return self._captioning(columns, ready)

    def without_caption(self, split: str, samples: int) -> int:
        """How many of `samples` have none; where they are many, as many as the share of some of them says."""
        looked_at = np.unique(np.linspace(0, max(0, samples - 1), min(samples, _COUNTED)).astype(np.int64))
        empty = sum(not caption for caption in self.views(split, looked_at, None))
        return round(empty * samples / max(1, len(looked_at)))

    def _tell(self, split: str, sample: int) -> tuple[bytes, ...]:
        try:
            texts = tuple(text.encode("utf-8", "replace") for text in self.texts(split, sample))
        except OSError:
            return ()
        except (ValueError, RecursionError):  # no JSON object: `shards lint` names it
            texts = (self._shards.stored_caption(split, sample),)
        if len(self._memo) < _REMEMBERED:
            self._memo[split, sample] = texts
        return texts


def columns_of(shards: ShardSet) -> set[str]:
    """The columns that a template for `shards` may name: by the manifest, else by samples from all over it."""
    named = shards.manifest.extra.get("columns")
    if isinstance(named, list) and all(isinstance(name, str) for name in named):
        return set(named)
    found: set[str] = set()
    for split, samples in shards.manifest.splits.items():
        for sample in np.unique(np.linspace(0, max(0, samples - 1), min(samples, _COLUMNS_OF)).astype(int)).tolist():
            try:
                found |= shards.metadata(split, sample).keys()
            except (OSError, ValueError, RecursionError):
                continue
    return found - {CAPTIONS, READY}


def alternatives_in(metadata: bytes | memoryview) -> list[str]:
    """The captions to draw from that a sample's JSON holds, [] where it has not several."""
    try:
        found = json.loads(bytes(metadata))
    except (ValueError, RecursionError):
        return []
    texts = texts_in(found, CAPTIONS) if isinstance(found, dict) else []
    return texts if len(texts) > 1 else []


def texts_in(metadata: Mapping[str, Any], name: str) -> list[str]:
    """The list of texts that metadata has under `name`, [] where it has none."""
    texts = metadata.get(name)
    return texts if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else []
