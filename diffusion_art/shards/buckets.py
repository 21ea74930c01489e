"""Which samples of a split have which size, where pictures keep their shape (`sizes.bucket_sizes`).

What is read of a bucket (`train/160x96`) is an order over its samples alone. Which samples those are stands in
`buckets-<split>.npy`: the numbers of all samples (int64), those of the first bucket of the manifest first, each
bucket's in the order of the index. They come from the headers of the stored pictures, so they are a pure function of
the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import simplejpeg

from diffusion_art.files import mapped, written
from diffusion_art.shards.manifest import BucketInfo, ShardInfo, mismatch
from diffusion_art.shards.order import Order, by_group
from diffusion_art.shards.tables import open_index
from diffusion_art.sizes import log_ratio, named


class BucketTable:
    """The file of `info` in `folder`, for a split of `samples`; UserError when it is not that."""

    def __init__(self, folder: Path, info: BucketInfo, samples: int) -> None:
        file = folder / info.table.file
        try:
            table = np.asarray(np.lib.format.open_memmap(file, mode="r"))
        except (ValueError, OverflowError, EOFError, SyntaxError) as error:
            raise mismatch(folder, info.table.file, f"no NumPy array ({error})", "numbers of samples") from None
        if table.dtype != np.dtype("<i8") or table.shape != (samples,) or sum(info.counts.values()) != samples:
            found = f"{table.dtype} in shape {table.shape}"
            raise mismatch(folder, info.table.file, found, f"the numbers of {samples} samples in their buckets")
        starts = [0, *accumulate(info.counts.values())]
        self._members = {name: table[a:b] for name, a, b in zip(info.counts, starts, starts[1:], strict=False)}
        self._samples, self._path = samples, file

    def members(self, bucket: str) -> np.ndarray:
        """The numbers (int64) of a bucket's samples, a view into the file."""
        return self._members.get(bucket, np.empty(0, np.int64))


class BucketOrder:
    """Place -> sample of one epoch of a bucket: `order` over its samples, looked up in the tables of its components.

    `parts` are the samples of each component, and the number of its first sample in the whole.
    """

    def __init__(self, order: Order, parts: Sequence[tuple[np.ndarray, int]], *, samples_of_split: int) -> None:
        self.samples = order.samples
        self._order, self._parts, self._limit = order, parts, samples_of_split
        self._starts = np.array([0, *accumulate(len(members) for members, _ in parts)])

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The samples (int64) at `positions`. ValueError where a table names one that is not there."""
        places = self._order(positions)
        owners = np.searchsorted(self._starts, places, side="right") - 1

        def own(number: int, here: np.ndarray) -> np.ndarray:
            members, offset = self._parts[number]
            return members[here - self._starts[number]] + offset

        found = by_group(owners, places, own)
        if found.size and not 0 <= found.min() <= found.max() < self._limit:
            raise ValueError(f"a table of buckets names sample {found.max()} of {self._limit}")
        return found


def write_buckets(folder: Path, split: str, index: ShardInfo, shards: Sequence[ShardInfo]) -> BucketInfo:
    """Write `buckets-<split>.npy` from the headers of the stored pictures."""
    rows = open_index(folder, index, shards)
    sizes = np.empty((len(rows), 2), np.int64)
    for number, info in enumerate(shards):
        with mapped(folder / info.file) as tar:
            for i in np.flatnonzero(rows["shard"] == number).tolist():
                start = int(rows["image_offset"][i])
                height, width, *_ = simplejpeg.decode_jpeg_header(tar[start : start + int(rows["image_length"][i])])
                sizes[i] = width, height
    kinds, numbers, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    known = [(int(width), int(height)) for width, height in kinds]
    by_ratio = sorted(range(len(known)), key=lambda kind: log_ratio(known[kind]))
    table = np.concatenate([np.flatnonzero(numbers.reshape(-1) == kind) for kind in by_ratio]).astype("<i8")
    path = folder / f"buckets-{split}.npy"
    with written(path, on_disk=True) as partial, partial.open("wb") as file:
        np.lib.format.write_array(file, table, version=(1, 0), allow_pickle=False)
    told = {named(known[kind]): int(counts[kind]) for kind in by_ratio}
    return BucketInfo(ShardInfo.of(path, len(rows)), told)
