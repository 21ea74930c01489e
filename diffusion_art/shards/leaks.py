"""No validation picture of one shard set may be a training picture of another that is mixed with it."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import Mixture, Shards
from diffusion_art.shards.reader import ShardSet

_KEYS_AT_ONCE = 2**20  # 50 MB of index


def refuse_leaks(shards: Shards) -> None:
    """UserError when a validation picture of one component is a training picture of another.

    Within a folder none can be: its writer sees to it.
    """
    for held_out, shown, keys in leaks(shards.components if isinstance(shards, Mixture) else ()):
        raise UserError(
            f"{len(keys)} validation pictures of {held_out.place} are training pictures of {shown.place}, such "
            f"as {int(keys[0]):016x}; build both with one val_fraction (`python -m diffusion_art.prepare "
            f"source=NAME val_fraction=0.05`), which keeps a picture in one split everywhere"
        )


def leaks(parts: Sequence[ShardSet]) -> Iterator[tuple[ShardSet, ShardSet, np.ndarray]]:
    """Every two of `parts` where the first holds keys (uint64) for validation that the second trains on."""
    for held_out, shown in itertools.permutations(parts, 2):
        keys = np.sort(held_out.keys("val")) if held_out.splits.get("val") else np.empty(0, np.uint64)
        if len(common := _common_keys(keys, shown, split="train")):
            yield held_out, shown, common


def _common_keys(keys: np.ndarray, shards: ShardSet, *, split: str) -> np.ndarray:
    """Those of `keys` (sorted) that `split` of `shards` has too. Seconds for 100 million, the index once in memory."""
    own = shards.keys(split) if len(keys) and shards.splits.get(split) else np.empty(0, np.uint64)
    found = [np.empty(0, np.uint64)]
    for start in range(0, len(own), _KEYS_AT_ONCE):
        chunk = own[start : start + _KEYS_AT_ONCE]
        places = np.searchsorted(keys, chunk)
        found.append(chunk[keys[np.minimum(places, len(keys) - 1)] == chunk])
    return np.concatenate(found)
