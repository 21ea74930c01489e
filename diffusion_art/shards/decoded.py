"""Pictures decoded once, for networks that are faster than a JPEG decoder: rows of a mapped file.

    <cache>/<digest>-<size>px/<split>.u8    h x w x 3 bytes of each sample, RGB, in the order of the index; where
                                            pictures have several sizes, those of one bucket after the other
                              <split>.bad   one byte per sample: 1 where it is no picture that can be read

What lies there is exactly what a client would decode from the stored bytes (pixels.py), so batches are equal to
the bit. `predecode.py` makes these files.
"""

import logging
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from diffusion_art.sizes import Size

log = logging.getLogger(__name__)


class EqualRows:
    """Where the pixels of the samples of a split lie, in `bytes` together: pictures of one size."""

    def __init__(self, samples: int, size: Size) -> None:
        self.samples, self.bytes = samples, samples * bytes_of(size)
        self._row = bytes_of(size)

    def __call__(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each of `samples` begins and ends (int64)."""
        starts = samples * self._row
        return starts, starts + self._row


class UnequalRows:
    """The same of pictures of several sizes, one size after the other. `members` are the samples of each."""

    def __init__(self, samples: int, members: Iterable[tuple[Size, np.ndarray]]) -> None:
        self.samples, self.bytes = samples, 0
        self._starts, self._stops = np.zeros(samples, np.int64), np.zeros(samples, np.int64)
        for size, here in members:
            row = bytes_of(size)
            self._starts[here] = self.bytes + row * np.arange(len(here))
            self._stops[here] = self._starts[here] + row
            self.bytes += row * len(here)

    def __call__(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._starts[samples], self._stops[samples]


Rows: TypeAlias = EqualRows | UnequalRows


def bytes_of(size: Size) -> int:
    """Of a picture's pixels."""
    return 3 * size[0] * size[1]


class Decoded:
    """The decoded pictures of one shard set, mapped from `folder`. `rows` are those of each split.

    Raises:
        FileNotFoundError, ValueError: files missing, or not of the size they must have.
    """

    def __init__(self, folder: Path, *, rows: Mapping[str, Rows]) -> None:
        self.folder = folder
        self._rows = rows
        self._maps: dict[str, tuple[mmap.mmap, memoryview]] = {}
        self._bad: dict[str, np.ndarray] = {}
        for split, own in rows.items():
            if own.samples == 0:
                continue
            with (folder / f"{split}.u8").open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps[split] = (mapped, memoryview(mapped))
            self._bad[split] = np.fromfile(folder / f"{split}.bad", bool)
            if (len(mapped), len(self._bad[split])) != (own.bytes, own.samples):
                raise ValueError(f"{folder / split}.u8 has {len(mapped)} bytes for {own.samples} samples")

    def views(self, split: str, samples: np.ndarray) -> list[memoryview | None]:
        """The pixels of `samples`, None where there are none, as views into the file: no copy."""
        mapped, view = self._maps[split]
        if mapped.size() != len(view):  # cut since it was opened: to read past a file's end kills the process
            log.error("%s has been cut while it was served, delete it and start the server again", self.folder)
            return [None] * len(samples)
        starts, stops = self._rows[split](samples)
        found: list[memoryview | None] = [view[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        for i in np.flatnonzero(self._bad[split][samples]).tolist():
            found[i] = None
        return found

    def prefetch(self, split: str, samples: np.ndarray) -> None:
        """Have the kernel read these samples from disk without waiting."""
        mapped, _ = self._maps[split]
        starts, stops = self._rows[split](samples)
        firsts = starts - starts % mmap.PAGESIZE
        for first, size in zip(firsts.tolist(), (stops - firsts).tolist(), strict=True):
            mapped.madvise(mmap.MADV_WILLNEED, first, size)
