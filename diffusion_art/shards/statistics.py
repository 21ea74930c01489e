"""What the columns of shards hold: which styles, artists and genres, and how many pictures of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from diffusion_art.captions.captioner import clean
from diffusion_art.shards.mixture import Shards, parts_of


def statistics(shards: Shards, columns: Sequence[str]) -> dict[str, Any]:
    """Counts by split and column, as JSON: the values with most pictures first, and how many have none.

    Reads the metadata of every sample. Words for missing, and samples
    that cannot be read, count as without a value.
    """
    counts: dict[str, dict[str, Counter[str]]] = {
        split: {name: Counter() for name in columns} for split in shards.splits
    }
    for split, found in _metadata(shards):
        for name in columns:
            counts[split][name][clean(str(found.get(name) or ""))] += 1
    splits = {split: {name: _told(counter) for name, counter in named.items()} for split, named in counts.items()}
    return {"name": shards.name, "digest": shards.digest, "samples": dict(shards.splits), "splits": splits}


def _metadata(shards: Shards) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in parts_of(shards):
        for split, samples in part.splits.items():
            for i in range(samples):
                try:
                    yield split, part.metadata(split, i)
                except (OSError, ValueError, RecursionError):
                    yield split, {}


def _told(counter: Counter[str]) -> dict[str, Any]:
    without = counter.pop("", 0)
    return {"different": len(counter), "without": without, "counts": dict(counter.most_common())}
