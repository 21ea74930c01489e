"""Pictures decoded once, for networks that are faster than a JPEG decoder: rows of a mapped file.

    <cache>/<digest>-<size>px/<split>.u8    h x w x 3 bytes of each sample, RGB, in the order of the index; where
                                            pictures have several sizes, those of one bucket after the other
                              <split>.bad   one byte per sample: 1 where it is no picture that can be read

What lies there is exactly what a client would decode from the stored bytes (pixels.py), so batches are equal to
the bit. `predecode` makes these files, once, with all cores.
"""

import contextlib
import logging
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
from rich.progress import TextColumn

from diffusion_art.errors import UserError
from diffusion_art.files import CACHE_VARIABLE, cache_folder, locked, mapped, write_all
from diffusion_art.shards.manifest import split_of
from diffusion_art.shards.mixture import Shards, parts_of
from diffusion_art.shards.pixels import BadPicture, decode_into
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sizes import Size
from diffusion_art.units import progress_bar

_CHUNK = 128  # samples one thread decodes at a time

_Chunk = tuple[str, np.ndarray, Size]  # a split or a bucket of one, samples of it that lie side by side, their size
_Done = Callable[[int], None]

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
            pixels = mapped(folder / f"{split}.u8")
            self._maps[split] = (pixels, memoryview(pixels))
            self._bad[split] = np.fromfile(folder / f"{split}.bad", bool)
            if (len(pixels), len(self._bad[split])) != (own.bytes, own.samples):
                raise ValueError(f"{folder / split}.u8 has {len(pixels)} bytes for {own.samples} samples")

    def views(self, split: str, samples: np.ndarray) -> list[memoryview | None]:
        """The pixels of `samples`, None where there are none, as views into the file: no copy."""
        pixels, view = self._maps[split]
        if pixels.size() != len(view):  # cut since it was opened: to read past a file's end kills the process
            log.error("%s has been cut while it was served, delete it and start the server again", self.folder)
            return [None] * len(samples)
        starts, stops = self._rows[split](samples)
        found: list[memoryview | None] = [view[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        for i in np.flatnonzero(self._bad[split][samples]).tolist():
            found[i] = None
        return found

    def prefetch(self, split: str, samples: np.ndarray) -> None:
        """Have the kernel read these samples from disk without waiting."""
        pixels, _ = self._maps[split]
        starts, stops = self._rows[split](samples)
        firsts = starts - starts % mmap.PAGESIZE
        for first, size in zip(firsts.tolist(), (stops - firsts).tolist(), strict=True):
            pixels.madvise(mmap.MADV_WILLNEED, first, size)


# ---------------------------------------------------------------------- making these files


def predecode(
    shards: Shards, *, cache: str | Path | None = None, workers: int | None = None, progress: bool = True
) -> None:
    """Give `shards` the codec u8: decode every picture into `cache` where that was not done before, and map it.

    A data set is found again by its digest and image size. The files get their name only when they are whole; of
    several processes one decodes, with `workers` threads (None: one per core), the others wait for it.

    Raises:
        UserError: no room in `cache`, or no leave to write there.
    """
    cache = Path(cache) if cache is not None else cache_folder("decoded")
    for part in parts_of(shards):
        part.forms["u8"] = _open(part, cache.expanduser(), workers or _cores(), progress)


def rows_of(shards: ShardSet) -> dict[str, Rows]:
    """Where the decoded pictures of each split lie."""
    members: dict[str, list[tuple[Size, np.ndarray]]] = {}
    for name, _, size in shards.one_sized():
        split, bucket = split_of(name)
        if bucket is not None:
            members.setdefault(split, []).append((size, shards.members(split, bucket)))
    square = shards.image_size_px, shards.image_size_px
    return {
        split: UnequalRows(samples, members[split]) if split in members else EqualRows(samples, square)
        for split, samples in shards.splits.items()
    }


def _open(shards: ShardSet, cache: Path, workers: int, progress: bool) -> Decoded:
    folder = cache / f"{shards.digest}-{shards.image_size_px}px"
    rows = rows_of(shards)
    with contextlib.suppress(FileNotFoundError, ValueError):
        return Decoded(folder, rows=rows)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            with contextlib.suppress(FileNotFoundError, ValueError):  # made while we waited
                return Decoded(folder, rows=rows)
            _refuse_without_room(shards, rows, cache)
            _decode(shards, rows, folder, workers, progress)
            return Decoded(folder, rows=rows)
    except OSError as error:
        raise UserError(
            f"cannot keep the decoded pictures of {shards.name} in {cache} ({error.strerror or error}); name another "
            f"folder with {CACHE_VARIABLE}=FOLDER, or serve and train with data.payload=jpeg"
        ) from error


def _decode(shards: ShardSet, rows: Mapping[str, Rows], folder: Path, workers: int, progress: bool) -> None:
    """Decode every split into `folder`, which appears when all of it is there and on disk."""
    shutil.rmtree(folder, ignore_errors=True)
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    total = sum(shards.splits.values())
    try:
        with progress_bar(progress, TextColumn("{task.completed:,.0f} of {task.total:,.0f}")) as bar:
            task = bar.add_task(f"decoding {shards.name}", total=total)
            for split, samples in shards.splits.items():
                bad = np.zeros(samples, bool)
                with (partial / f"{split}.u8").open("wb") as file:
                    chunks = _chunks(shards, split)
                    work = _Decoding(shards, rows[split], bad, file.fileno(), chunks, lambda n: bar.advance(task, n))
                    with ThreadPoolExecutor(workers) as threads:
                        for thread in [threads.submit(work) for _ in range(workers)]:
                            thread.result()
                    os.fsync(file.fileno())
                (partial / f"{split}.bad").write_bytes(bad.tobytes())
                if bad.any():
                    log.warning("%d of %d pictures of split %s cannot be read", bad.sum(), samples, split)
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


class _Decoding:
    """What each thread does: take the next chunk, decode it, write it to its place; JPEG decoding frees the lock."""

    def __init__(
        self, shards: ShardSet, rows: Rows, bad: np.ndarray, file: int, chunks: Iterator[_Chunk], done: _Done
    ) -> None:
        self._shards, self._rows, self._bad, self._file, self._done = shards, rows, bad, file, done
        self._chunks, self._lock = chunks, threading.Lock()

    def __call__(self) -> None:
        try:
            while (chunk := self._next()) is not None:
                name, samples, (width, height) = chunk
                pixels = np.empty((len(samples), height, width, 3), np.uint8)
                _, _, images = self._shards.views(name, samples)
                for sample, row, image in zip(samples.tolist(), pixels, images, strict=True):
                    try:
                        decode_into(image or b"", row)
                    except BadPicture:
                        row[...] = 0
                        self._bad[sample] = True
                write_all(self._file, pixels.data.cast("B"), int(self._rows(samples[:1])[0][0]))
                self._done(len(samples))
        except BaseException:
            self._chunks = iter(())  # the others may stop too
            raise

    def _next(self) -> _Chunk | None:
        with self._lock:
            return next(self._chunks, None)


def _chunks(shards: ShardSet, split: str) -> Iterator[_Chunk]:
    for name, samples, size in shards.one_sized():
        if split_of(name)[0] == split:
            for start in range(0, samples, _CHUNK):
                yield name, shards.samples(name, None, 0, start, min(start + _CHUNK, samples)), size


def _refuse_without_room(shards: ShardSet, rows: Mapping[str, Rows], cache: Path) -> None:
    needed = sum(own.bytes + own.samples for own in rows.values())
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise UserError(
            f"the decoded pictures of {shards.name} take {needed / 1e9:.1f} GB and {cache} has {free / 1e9:.1f} GB "
            f"free; name a larger disk with {CACHE_VARIABLE}=FOLDER, or serve and train with data.payload=jpeg"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
