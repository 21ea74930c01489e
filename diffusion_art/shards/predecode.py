"""Decode every picture of a data set once, with all cores, into files that servers map (decoded.py)."""

import contextlib
import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from diffusion_art.errors import UserError
from diffusion_art.files import CACHE_VARIABLE, cache_folder
from diffusion_art.shards.buckets import split_of
from diffusion_art.shards.decoded import Decoded, EqualRows, Rows, UnequalRows
from diffusion_art.shards.mixture import Shards, parts_of
from diffusion_art.shards.pixels import BadPicture, decode_into
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sizes import Size

_CHUNK = 128  # samples one thread decodes at a time

_Chunk = tuple[str, np.ndarray, Size]  # a split or a bucket of one, samples of it that lie side by side, their size
_Done = Callable[[int], None]

log = logging.getLogger(__name__)


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
        with _locked(folder.with_suffix(".lock")):
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
        with _progress_bar(progress) as bar:
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
                _write(self._file, pixels, at=int(self._rows(samples[:1])[0][0]))
                self._done(len(samples))
        except BaseException:
            self._chunks = iter(())  # the others may stop too
            raise

    def _next(self) -> _Chunk | None:
        with self._lock:
            return next(self._chunks, None)


def _write(file: int, rows: np.ndarray, *, at: int) -> None:
    data = rows.data.cast("B")
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written


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


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time; the lock goes with the process that holds it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _progress_bar(shown: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not shown)
