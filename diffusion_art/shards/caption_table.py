"""The captions of a split of which some samples have several: `captions-<split>.bin`, memory-mapped.

    header, 32 bytes   magic "dart-cap", samples u64, texts u64, bytes of all texts u64
    texts              UTF-8, one after the other, zeros after them up to a multiple of 8 bytes
    first              (samples + 1) x u64: sample i has the texts first[i] to first[i + 1] - 1
    starts             (texts + 1) x u64: text j is the bytes starts[j] to starts[j + 1] - 1 of the texts

All little-endian. Of a sample with one caption that is its only text. A split without such a sample has no file.
"""

from __future__ import annotations

import logging
import mmap
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusion_art.captions.captioner import CAPTIONS
from diffusion_art.files import mapped, written
from diffusion_art.shards.index import open_index
from diffusion_art.shards.manifest import ShardInfo, mismatch
from diffusion_art.shards.recaptioning import alternatives_in

_HEADER = struct.Struct("<8sQQQ")
_MAGIC = b"dart-cap"
_HALF = np.uint64(32)
_MARK = f'"{CAPTIONS}": ['.encode()  # as ShardWriter writes it

log = logging.getLogger(__name__)


class CaptionTable:
    """The file `info` of `folder`, for `samples` samples; UserError when it is not that. Reading is thread-safe."""

    def __init__(self, folder: Path, info: ShardInfo, samples: int) -> None:
        self._path = folder / info.file
        try:
            self._map = mapped(self._path)
            self._view = memoryview(self._map)
            magic, rows, texts, size = _HEADER.unpack_from(self._view)
            after = _HEADER.size + size + -size % 8
            if (magic, rows, after + 8 * (rows + texts + 2)) != (_MAGIC, samples, len(self._view)):
                raise ValueError
            self._first = np.frombuffer(self._view, "<i8", rows + 1, after)
            self._starts = np.frombuffer(self._view, "<i8", texts + 1, after + 8 * (rows + 1))
            self._texts = self._view[_HEADER.size : _HEADER.size + size]
            if (self._first[0], self._first[-1], self._starts[0], self._starts[-1]) != (0, texts, 0, size):
                raise ValueError
        except (ValueError, struct.error):
            raise mismatch(folder, info.file, "no table of captions", f"one of {samples} samples") from None

    def views(self, samples: np.ndarray, draws: np.ndarray | None) -> list[memoryview | None]:
        """A caption (UTF-8) of each sample: the first, or the one that its draw (uint64) falls on; no copy."""
        if self._map.size() != len(self._view):  # cut: to read past a file's end kills the process
            log.error("%s has been cut while it was served, copy it again and start the server again", self._path)
            return [None] * len(samples)
        number = self._first.take(samples)
        if draws is not None:
            counts = self._first.take(samples + 1) - number
            number += (draws >> _HALF).astype(np.int64) * counts >> 32
        starts, ends = self._starts.take(number, mode="clip"), self._starts.take(number + 1, mode="clip")
        texts = self._texts
        return [texts[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def texts(self, sample: int) -> list[str]:
        """All captions of a sample."""
        numbers = range(int(self._first[sample]), int(self._first[sample + 1]))
        return [str(self._texts[self._starts[j] : self._starts[j + 1]], "utf-8", "replace") for j in numbers]

    @property
    def several(self) -> int:
        """How many samples have two captions or more."""
        return int(np.count_nonzero(np.diff(self._first) > 1))


def write_captions(folder: Path, split: str, index: ShardInfo, shards: Sequence[ShardInfo]) -> ShardInfo | None:
    """Write `captions-<split>.bin` from the shards and their index; None where no sample has several captions."""
    path = folder / f"captions-{split}.bin"
    path.unlink(missing_ok=True)
    rows = open_index(folder, index, shards)
    if not any(_has_several(folder, info, rows, number) for number, info in enumerate(shards)):
        return None
    first, starts = array("Q", [0]), array("Q", [0])
    with written(path, on_disk=True) as partial, partial.open("wb") as file:
        file.write(bytes(_HEADER.size))
        for number, info in enumerate(shards):
            with mapped(folder / info.file) as tar:
                for row in rows[rows["shard"] == number]:
                    for text in _texts(tar, row):
                        file.write(text)
                        starts.append(starts[-1] + len(text))
                    first.append(len(starts) - 1)
        file.write(bytes(-starts[-1] % 8))
        file.write(np.array(first, "<u8").tobytes() + np.array(starts, "<u8").tobytes())
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, len(first) - 1, len(starts) - 1, starts[-1]))
    return ShardInfo.of(path, len(rows))


def _has_several(folder: Path, info: ShardInfo, rows: np.ndarray, number: int) -> bool:
    """Whether a sample of this shard has captions to draw from."""
    with mapped(folder / info.file) as tar:
        if tar.find(_MARK) < 0:
            return False
        return any(len(_texts(tar, row)) > 1 for row in rows[rows["shard"] == number])


def _texts(tar: mmap.mmap, row: np.void) -> list[bytes]:
    """The captions of one sample."""
    start, length = int(row["metadata_offset"]), int(row["metadata_length"])
    if tar.find(_MARK, start, start + length) >= 0 and (texts := alternatives_in(tar[start : start + length])):
        return [text.encode("utf-8", "replace") for text in texts]
    start, length = int(row["caption_offset"]), int(row["caption_length"])
    return [tar[start : start + length]]
