"""Pictures decoded once, for networks that are faster than a JPEG decoder: rows of a mapped file.

    <cache>/<digest>-<size>px/<split>.u8    samples x s x s x 3 bytes: sample i at i * 3 s^2, RGB
                              <split>.bad   one byte per sample: 1 where it is no picture that can be read

What lies there is exactly what a client would decode from the stored bytes (pixels.py), so batches are equal to
the bit. `predecode.py` makes these files.
"""

import logging
import mmap
from collections.abc import Mapping
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)


class Decoded:
    """The decoded pictures of one shard set, mapped from `folder`. `splits` are sample counts.

    Raises:
        FileNotFoundError, ValueError: files missing, or not of the size they must have.
    """

    def __init__(self, folder: Path, *, splits: Mapping[str, int], image_size_px: int) -> None:
        self.folder = folder
        self.row_bytes = 3 * image_size_px**2
        self._maps: dict[str, tuple[mmap.mmap, memoryview]] = {}
        self._bad: dict[str, np.ndarray] = {}
        for split, samples in splits.items():
            if samples == 0:
                continue
            with (folder / f"{split}.u8").open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps[split] = (mapped, memoryview(mapped))
            self._bad[split] = np.fromfile(folder / f"{split}.bad", bool)
            if (len(mapped), len(self._bad[split])) != (samples * self.row_bytes, samples):
                raise ValueError(f"{folder / split}.u8 has {len(mapped)} bytes for {samples} samples")

    def views(self, split: str, samples: np.ndarray) -> list[memoryview | None]:
        """The pixels of `samples`, None where there are none, as views into the file: no copy."""
        mapped, view = self._maps[split]
        if mapped.size() != len(view):  # cut since it was opened: to read past a file's end kills the process
            log.error("%s has been cut while it was served, delete it and start the server again", self.folder)
            return [None] * len(samples)
        starts = (samples * self.row_bytes).tolist()
        found: list[memoryview | None] = [view[start : start + self.row_bytes] for start in starts]
        for i in np.flatnonzero(self._bad[split][samples]).tolist():
            found[i] = None
        return found

    def prefetch(self, split: str, samples: np.ndarray) -> None:
        """Have the kernel read these samples from disk without waiting."""
        mapped, _ = self._maps[split]
        for start in (samples * self.row_bytes).tolist():
            first = start - start % mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, first, start + self.row_bytes - first)
