"""The tables beside the shards of a split, memory-mapped: its index, and its captions. Buckets have theirs in
buckets.py.

`index-<split>.npy` says where in which shard each sample lies, in one row of fixed size per sample. The rows are read
back from the tars rather than remembered from writing them, so shards of any origin are indexed.

`captions-<split>.bin` is there where some samples have several captions. A sample with one has that as its only text.

    header, 32 bytes   magic "dart-cap", samples u64, texts u64, bytes of all texts u64
    texts              UTF-8, one after the other, zeros after them up to a multiple of 8 bytes
    first              (samples + 1) x u64: sample i has the texts first[i] to first[i + 1] - 1
    starts             (texts + 1) x u64: text j is the bytes starts[j] to starts[j + 1] - 1 of the texts

All numbers are little-endian.
"""

from __future__ import annotations

import logging
import mmap
import re
import struct
import tokenize
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusion_art.captions.captioner import CAPTIONS
from diffusion_art.errors import UserError
from diffusion_art.files import mapped, written
from diffusion_art.shards.manifest import ShardInfo, mismatch, rebuild
from diffusion_art.shards.recaptioning import alternatives_in

log = logging.getLogger(__name__)

# ---------------------------------------------------------------------- the index

# Little-endian and without padding (48 bytes), so that the file means the same on every machine. Offsets and
# lengths are bytes within the shard; `key` is the sample's key as a number, `shard` counts within the split.
INDEX_ROW = np.dtype(
    [
        ("key", "<u8"),
        ("image_offset", "<u8"),
        ("caption_offset", "<u8"),
        ("metadata_offset", "<u8"),
        ("image_length", "<u4"),
        ("caption_length", "<u4"),
        ("metadata_length", "<u4"),
        ("shard", "<u4"),
    ]
)

BLOCK = 512  # of a tar, bytes
MEMBERS = ("jpg", "txt", "json")  # image, caption, metadata: a sample's members, always in this order

# USTAR: name[100] mode uid gid (24 bytes) size[12] mtime checksum (20) type, link name[100], magic
_USTAR = re.compile(
    rb"(?P<key>[0-9a-f]{16})\.(?P<suffix>[a-z]+)\0+.{24}(?P<size>[0-7]{11})\0.{20}0\0{100}ustar\x0000.*", re.DOTALL
)


def index_shard(path: Path, *, shard: int = 0) -> np.ndarray:
    """The rows of one tar, from its headers alone; `shard` is the number they carry.

    UserError, naming the file and the byte, when the tar is truncated or not laid out as ShardWriter does it.
    """
    rows: list[tuple[int, ...]] = []
    if path.stat().st_size < 2 * BLOCK:
        raise _broken(path, path.stat().st_size, "is truncated")
    with mapped(path) as tar:
        position, end = 0, len(tar) - 2 * BLOCK
        while position < end:
            stems, offsets, lengths = [], [], []
            for suffix in MEMBERS:
                stem, length = _read_header(tar, position, suffix, path=path)
                stems.append(stem)
                offsets.append(position + BLOCK)
                lengths.append(length)
                position += BLOCK + length + -length % BLOCK
            if position > end or len(set(stems)) != 1:
                raise _broken(path, offsets[0] - BLOCK, "is truncated or mixes samples")
            rows.append((int(stems[0], 16), *offsets, *lengths, shard))
        if any(tar[end:]):
            raise _broken(path, end, "is truncated: the two empty blocks that end a tar are missing")
    return np.array(rows, dtype=INDEX_ROW)


def write_index(folder: Path, split: str, shards: Sequence[ShardInfo]) -> tuple[ShardInfo, np.ndarray]:
    """Write `index-<split>.npy`; its description and the keys (uint64) of all samples.

    UserError when a shard does not hold what its ShardInfo says.
    """
    path = folder / f"index-{split}.npy"
    samples = sum(info.samples for info in shards)
    keys = np.empty(samples, np.uint64)
    done = 0
    with written(path, on_disk=True) as partial, partial.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(INDEX_ROW), "fortran_order": False, "shape": (samples,)}
        np.lib.format.write_array_header_1_0(file, header)
        for number, info in enumerate(shards):
            tar = folder / info.file
            rows = index_shard(tar, shard=number)
            if (len(rows), tar.stat().st_size) != (info.samples, info.bytes):
                raise UserError(
                    f"shard {tar} holds {len(rows)} samples in {tar.stat().st_size} bytes, not "
                    f"{info.samples} in {info.bytes}; delete it and build again with {rebuild(folder)}"
                )
            keys[done : done + len(rows)] = rows["key"]
            done += len(rows)
            file.write(rows.tobytes())
    return ShardInfo.of(path, samples), keys


def open_index(folder: Path, index: ShardInfo, shards: Sequence[ShardInfo]) -> np.ndarray:
    """The memory-mapped rows of a split, checked where it is cheap: first and last row of every shard."""
    try:
        rows = np.lib.format.open_memmap(folder / index.file, mode="r")  # no pickles, no archives
    except (ValueError, OverflowError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise mismatch(folder, index.file, f"no NumPy array ({error})", "an array of index rows") from None
    expected = (sum(shard.samples for shard in shards),)
    if rows.dtype != INDEX_ROW or rows.shape != expected:
        found = f"rows of {rows.dtype.itemsize} bytes in shape {rows.shape}"
        raise mismatch(folder, index.file, found, f"rows of {INDEX_ROW.itemsize} bytes in shape {expected}")
    samples = np.array([shard.samples for shard in shards], dtype=np.int64)
    sizes = np.array([shard.bytes for shard in shards], dtype=np.uint64)
    numbers = np.flatnonzero(samples)
    last = np.cumsum(samples)[numbers] - 1
    first = last + 1 - samples[numbers]
    ends = rows["metadata_offset"][last] + rows["metadata_length"][last]
    right = (rows["shard"][first] == numbers) & (rows["shard"][last] == numbers) & (ends <= sizes[numbers])
    if not right.all():
        wrong = shards[int(numbers[np.argmin(right)])]
        expected_rows = f"{wrong.samples} rows in {wrong.bytes} bytes"
        raise mismatch(folder, index.file, f"rows that do not fit {wrong.file}", expected_rows)
    return np.asarray(rows)  # a plain view of the map: numpy.memmap is slow to index


def _read_header(tar: mmap.mmap, position: int, suffix: str, *, path: Path) -> tuple[bytes, int]:
    """Key and content length of the member whose USTAR header stands at `position`."""
    found = header_at(tar, position, suffix)
    if found is None:
        name = tar[position : position + 100].rstrip(b"\0").decode("utf-8", "backslashreplace")
        raise _broken(path, position, f"is truncated, or has {name!r} where a `<16 hex digits>.{suffix}` belongs")
    return found


def header_at(tar: mmap.mmap | memoryview, position: int, suffix: str) -> tuple[bytes, int] | None:
    """The same, None where there is no header of a member with this suffix."""
    match = _USTAR.fullmatch(tar[position : position + BLOCK])
    if match is None or match["suffix"] != suffix.encode():
        return None
    return bytes(match["key"]), int(match["size"], 8)


def _broken(path: Path, position: int, what: str) -> UserError:
    return UserError(
        f"shard {path} {what} (at byte {position} of {path.stat().st_size}); "
        f"delete it and build again with {rebuild(path.parent)}"
    )


# ---------------------------------------------------------------------- the captions

_HEADER = struct.Struct("<8sQQQ")
_MAGIC = b"dart-cap"
_HALF = np.uint64(32)
_MARK = f'"{CAPTIONS}": ['.encode()  # as ShardWriter writes it


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
