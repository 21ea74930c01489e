"""Shards at an address, each copied whole into the cache before its first sample is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from diffusion_art.shards.manifest import Manifest
from diffusion_art.shards.places import Address, RemoteSettings
from diffusion_art.shards.remote.cache import inode_at, touch
from diffusion_art.shards.remote.copies import Copies
from diffusion_art.shards.store import Key, Mapped, Store, all_of, span_of

_LOOK_S = 2.0  # between two looks at which copies were used, and which are gone
_AT_ONCE = 8  # shards copied at once, each in several ranges
_FITS = 0.95  # of the cache's limit: blocks of a disk are rounded up
_AHEAD_AT_ONCE = 4  # of them, those that nobody has asked for yet


class RemoteStore(Store):
    """A Store whose files are copies in a cache that other processes use too. Reading waits for what is not there.

    UserError from reading when a shard cannot be copied.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, place: Address, copies: Copies) -> None:
        super().__init__(folder, manifest, place=place)
        self._copies = copies
        self._pool = ThreadPoolExecutor(self._tasks_at_once(), "shards")
        self._pending: dict[object, Future] = {}
        self._inodes: dict[Key, int] = {}
        self._used: dict[Key, None] = {}  # those used since the last look, the last one last
        self._looked = time.monotonic()
        copies.cache.before_evicting = lambda: self._look(force=True)

    def tars(self, split: str, rows: np.ndarray) -> dict[int, memoryview]:
        """The shards that `rows` lie in, copied where they were not yet. UserError where that cannot be done."""
        found, coming = {}, {}
        for shard in set(rows["shard"].tolist()):
            mapped = self._mapped.get((split, shard))
            if mapped is None:
                coming[shard] = self._coming(split, shard)
            else:
                found[shard] = mapped[1]
        for shard, future in coming.items():
            found[shard] = future.result()[1]
        self._note(split, found)
        return found

    def member(self, split: str, row: np.void, member: str) -> memoryview:
        tar = self.tars(split, np.array([row]))[int(row["shard"])]
        start, stop = span_of(row, member)
        if stop > len(tar):
            raise OSError(f"shard {int(row['shard'])} has {len(tar)} bytes, its index reaches to byte {stop}")
        return tar[start:stop]

    def prefetch(self, split: str, rows: np.ndarray) -> Future[None] | None:
        shards = set(rows["shard"].tolist())
        absent = [shard for shard in shards if (split, shard) not in self._mapped]
        if not absent and self.waits_for_disk():
            super().prefetch(split, rows)
        return all_of([self._coming(split, shard) for shard in absent])

    def copy_ahead(self, beside_bytes: int = 0) -> None:
        """Begin to copy all shards, those of the training split first, a few at a time: shards that are asked for have
        threads left. It ends at the first that cannot be copied: the error comes when that one is read. Where they, and
        `beside_bytes` of other data sets, do not all fit into the cache, nothing is copied.
        """
        if not all_fit(self.manifest.total_bytes + beside_bytes, self._copies.objects.address.settings):
            return
        splits = sorted(self.manifest.shards, key=lambda split: split != "train")
        keys = [(split, number) for split in splits for number in range(len(self.manifest.shards[split]))]
        threading.Thread(target=self._ahead, args=(keys,), name="shards ahead", daemon=True).start()

    def may_wait(self) -> bool:
        return True

    def waits_for_disk(self) -> bool:
        """Whether pages of the copies are worth asking for."""
        return super().may_wait()

    def _tasks_at_once(self) -> int:
        return _AT_ONCE

    def _ahead(self, keys: Iterable[Key]) -> None:
        room, failed = threading.Semaphore(_AHEAD_AT_ONCE), threading.Event()

        def ended(copy: Future) -> None:
            if copy.cancelled() or copy.exception() is not None:
                failed.set()
            room.release()

        for key in keys:
            if key in self._mapped:  # it was asked for since
                continue
            room.acquire()
            if failed.is_set():
                return
            try:
                copy = self._coming(*key)
            except RuntimeError:  # the program is ending
                return
            copy.add_done_callback(ended)

    def _coming(self, split: str, shard: int) -> Future[Mapped]:
        self._info(split, shard)
        return self._once((split, shard), lambda: self._bring(split, shard))

    def _once(self, name: object, work: Callable[[], Mapped]) -> Future[Mapped]:
        """The task of that name, begun where it is not under way."""
        with self._lock:
            if (future := self._pending.get(name)) is not None:
                return future
            future = self._pending[name] = self._pool.submit(work)
        future.add_done_callback(lambda _: self._pending.pop(name, None))
        return future

    def _bring(self, split: str, shard: int) -> Mapped:
        while True:
            path = self._copies.bring(self._info(split, shard))
            try:
                self._inodes[split, shard] = path.stat().st_ino
                return self._map(split, shard)
            except FileNotFoundError:  # evicted by another process, just now
                continue

    def _note(self, split: str, shards: Iterable[int]) -> None:
        """These were used."""
        with self._lock:
            for shard in shards:
                self._used.pop((split, shard), None)
                self._used[split, shard] = None
        self._look()

    def _look(self, *, force: bool = False) -> None:
        """Tell the cache what was used since the last look, and let go of what was evicted since: its room counts."""
        now = time.monotonic()
        if not force and now - self._looked < _LOOK_S:
            return
        with self._lock:
            used, self._used, self._looked = self._used, {}, now
            for key in [key for key in self._mapped if inode_at(self._path(key)) != self._inodes.get(key)]:
                del self._mapped[key]
            for key in used:
                touch(self._path(key))

    def _path(self, key: Key) -> Path:
        split, shard = key
        return self.folder / self.manifest.shards[split][shard].file


def all_fit(total_bytes: int, settings: RemoteSettings) -> bool:
    """Whether that much fits into the cache."""
    return total_bytes <= _FITS * settings.cache_bytes
