"""The bytes of shards: `Store` maps those of a folder, and remote/ has those that are copied from an address first."""

from __future__ import annotations

import contextlib
import mmap
import resource
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias

import numpy as np

from diffusion_art.files import mapped
from diffusion_art.shards.manifest import Manifest, ShardInfo, check_file
from diffusion_art.shards.places import Address, Place

_PREFETCH_CALLS = 64  # for so many requests after a page that was not in memory, pages are asked for ahead

Key: TypeAlias = tuple[str, int]  # split, number of the shard within it
Mapped: TypeAlias = tuple[mmap.mmap, memoryview]


def open_store(place: Place) -> Store:
    """The store of the shards at `place`, after cheap checks. UserError as from ShardSet.open."""
    if isinstance(place, Address):
        from diffusion_art.shards.remote.opening import open_remote  # loads what local folders do not need

        return open_remote(place)
    manifest = Manifest.load(place)
    for split in manifest.shards:
        for info in manifest.files(split):
            check_file(place, info.file, bytes=info.bytes)
    return Store(place, manifest)


class Store:
    """The shards of `folder`, mapped when first touched. Reading is thread-safe.

    `place` is what people know the folder by; index and captions lie in `folder` as files.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, place: Place | None = None) -> None:
        self.folder, self.manifest = folder, manifest
        self.place: Place = folder if place is None else place
        self._mapped: dict[Key, Mapped] = {}
        self._lock = threading.Lock()
        self._faults = self._calls_left = -1
        # Each map holds a file descriptor; leave half of them to everybody else.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_mapped = 2**15 if limit == resource.RLIM_INFINITY else max(1, limit // 2)

    def tars(self, split: str, rows: np.ndarray) -> dict[int, memoryview]:
        """The shards that `rows` of the index lie in, each proved to be whole.

        OSError where one is not, IndexError where there is not one of that number.
        """
        infos = self.manifest.shards[split]
        return {shard: self._view(split, shard, end=infos[shard].bytes) for shard in set(rows["shard"].tolist())}

    def member(self, split: str, row: np.void, member: str) -> memoryview:
        """One member of the sample of this row: image, caption or metadata. OSError where its bytes are not there."""
        start, stop = span_of(row, member)
        return self._view(split, int(row["shard"]), end=stop)[start:stop]

    def prefetch(self, split: str, rows: np.ndarray) -> Future[None] | None:
        """Have these rows' samples brought without waiting: by the kernel from a disk, which no future tells of."""
        spans = rows[["shard", "image_offset", "caption_offset", "caption_length"]].tolist()
        for shard, start, caption_offset, caption_length in spans:
            with contextlib.suppress(OSError, ValueError, OverflowError):  # `tars` will say so
                tar, _ = self._mapped.get((split, shard)) or self._map(split, shard)
                start -= start % mmap.PAGESIZE
                tar.madvise(mmap.MADV_WILLNEED, start, caption_offset + caption_length - start)
        return None

    def copy_ahead(self, beside_bytes: int = 0) -> None:
        """Begin to copy what is not on this machine, of which a folder has nothing."""

    def may_wait(self) -> bool:
        """Whether `prefetch` is worth its time: this process had to wait for a page of some file in the last calls, or
        these are the first. Once everything is in memory, asking for it would cost as much as serving it.
        """
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        if faults != self._faults:
            self._faults, self._calls_left = faults, _PREFETCH_CALLS
        self._calls_left -= 1
        return self._calls_left >= 0

    def _view(self, split: str, shard: int, *, end: int) -> memoryview:
        """The mapped shard, proved to reach to byte `end`: to read past a file's end kills the process."""
        tar, view = self._mapped.get((split, shard)) or self._map(split, shard)
        if end > min(tar.size(), len(view)):  # size(): of the file now, which may have been cut since
            file = self.folder / self.manifest.shards[split][shard].file
            raise OSError(f"{file} has {tar.size()} bytes, its index reaches to byte {end}")
        return view

    def _info(self, split: str, shard: int) -> ShardInfo:
        shards = self.manifest.shards[split]
        if shard >= len(shards):
            raise OSError(f"the index of split {split!r} names shard {shard} of {len(shards)}")
        return shards[shard]

    def _map(self, split: str, shard: int) -> Mapped:
        info = self._info(split, shard)
        path = self.folder / info.file
        with self._lock:
            if path.stat().st_size != info.bytes:
                raise OSError(f"{path} is no longer the file that was opened, {info.bytes} bytes long")
            tar = mapped(path)
            return self._keep((split, shard), (tar, memoryview(tar)))

    def _keep(self, key: Key, shard: Mapped) -> Mapped:
        """Under the lock."""
        if len(self._mapped) >= self._max_mapped:  # the oldest goes; views keep what they look at alive
            del self._mapped[next(iter(self._mapped))]
        self._mapped[key] = shard
        return shard


def span_of(row: np.void, member: str) -> tuple[int, int]:
    start = int(row[f"{member}_offset"])
    return start, start + int(row[f"{member}_length"])


def all_of(futures: Iterable[Future]) -> Future[None] | None:
    """A future that ends when all of `futures` have, with the first error of them; None where there are none.

    To cancel it cancels none of them: others may wait for them too.
    """
    waiting = list(futures)
    if not waiting:
        return None
    whole: Future[None] = Future()
    left, lock, errors = [len(waiting)], threading.Lock(), list[BaseException]()

    def ended(one: Future) -> None:
        if (error := one.exception()) is not None:
            errors.append(error)
        with lock:
            left[0] -= 1
            if left[0]:
                return
        if whole.set_running_or_notify_cancel():
            whole.set_exception(errors[0]) if errors else whole.set_result(None)

    for one in waiting:
        one.add_done_callback(ended)
    return whole
