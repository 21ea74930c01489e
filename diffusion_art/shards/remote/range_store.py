"""Shards at an address of which only what is asked for is copied: for data sets that are larger than the cache.

A copy `<shard>.ranges` is a sparse file: the shard's bytes as far as they have come, one byte (1) for each block of
them that has, and one for a shard that is all there and has the SHA-256 of the manifest. Blocks are written before
their byte is, so that a killed process leaves nothing that looks whole. The checksum is of the whole shard and is
checked when its last block has come; until then a sample's tar headers must name its key and the lengths of the index.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import Future
from io import FileIO
from pathlib import Path
from typing import TypeAlias

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.files import write_all
from diffusion_art.shards.manifest import ShardInfo
from diffusion_art.shards.remote.copies import PART_BYTES
from diffusion_art.shards.remote.remote_store import RemoteStore
from diffusion_art.shards.store import Key, Mapped, all_of
from diffusion_art.shards.tables import BLOCK as HEADER_BYTES
from diffusion_art.shards.tables import MEMBERS, header_at

BLOCK_BYTES = 2**18
_MOST_BLOCKS = PART_BYTES // BLOCK_BYTES  # of one request
_LOOKS = 100  # for a sample whose blocks are evicted again before it is read
_MEMBER_FIELDS = ("image", "caption", "metadata")  # as MEMBERS names them

Span: TypeAlias = tuple[int, tuple[int, int]]  # shard, bytes [start, stop) of it


class RangeStore(RemoteStore):
    """A RemoteStore that copies blocks of BLOCK_BYTES."""

    def tars(self, split: str, rows: np.ndarray) -> dict[int, memoryview]:
        """The shards that `rows` lie in, of which the bytes of these rows are there.

        UserError where they cannot be copied, or are not those that the index tells of.
        """
        found = self._there(split, _spans(rows))
        for row in rows:
            if not found[int(row["shard"])][-1]:
                self._check_headers(split, row, found[int(row["shard"])])
        return found

    def prefetch(self, split: str, rows: np.ndarray) -> Future[None] | None:
        return all_of([self._blocks(split, *run) for run in self._absent(split, _spans(rows))])

    def copy_ahead(self, beside_bytes: int = 0) -> None:
        """Nothing: only what is asked for is wanted."""

    def _tasks_at_once(self) -> int:
        return self._copies.objects.address.settings.connections

    def _path(self, key: Key) -> Path:
        path = super()._path(key)
        return path.with_name(f"{path.name}.ranges")

    def _there(self, split: str, spans: list[Span]) -> dict[int, memoryview]:
        """The copies of the shards of `spans`, flags and all, which have the bytes of these spans. OSError where a span
        is not one of its shard.
        """
        for _ in range(_LOOKS):
            for future in [self._blocks(split, *run) for run in self._absent(split, spans)]:
                future.result()
            copies = {shard: self._mapped.get((split, shard)) for shard, _ in spans}
            found = {shard: mapped[1] for shard, mapped in copies.items() if mapped is not None}
            if len(found) == len(copies) and all(_holds(self._info(split, n), found[n], *span) for n, span in spans):
                self._note(split, found)
                return found
        raise UserError(
            f"the cache of {self._copies.cache.limit_bytes} bytes is too small for what is read at once; set "
            "data.remote.cache_bytes higher"
        )

    def _absent(self, split: str, spans: list[Span]) -> Iterator[tuple[int, int, int]]:
        """Runs of blocks [first, end) of shards that `spans` need and that are not there."""
        wanted: dict[int, set[int]] = {}
        for shard, (start, stop) in spans:
            info, mapped = self._info(split, shard), self._mapped.get((split, shard))
            if not 0 <= start <= stop <= info.bytes:
                raise OSError(f"{info.file} has {info.bytes} bytes, its index tells of bytes {start} to {stop}")
            if mapped is None or not _holds(info, mapped[1], start, stop):
                wanted.setdefault(shard, set()).update(range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)))
        for shard, blocks in wanted.items():
            mapped = self._mapped.get((split, shard))
            there = bytes(_flags(self._info(split, shard), mapped[1])) if mapped else b""
            yield from ((shard, *run) for run in _runs(sorted(b for b in blocks if there[b : b + 1] != b"\1")))

    def _blocks(self, split: str, shard: int, first: int, end: int) -> Future[Mapped]:
        return self._once((split, shard, first, end), lambda: self._bring_blocks(split, shard, first, end))

    def _bring_blocks(self, split: str, shard: int, first: int, end: int) -> Mapped:
        """Copy blocks [first, end), as far as no other process has since."""
        key, info, cache = (split, shard), self._info(split, shard), self._copies.cache
        while True:
            with cache.claimed(self._path(key), shared=True) as file:
                mapped = self._map_file(key, info, file)
                flags = bytes(_flags(info, mapped[1]))
                absent = [block for block in range(first, end) if not flags[block]]
                if all(self._copy_blocks(info, file, *run) for run in _runs(absent)):
                    self._check_whole(key, info, file, mapped)
                    return mapped
            cache.make_room((end - first) * BLOCK_BYTES)  # this copy too may go for it: nothing is locked

    def _copy_blocks(self, info: ShardInfo, file: FileIO, first: int, end: int) -> bool:
        """False where there is no room in the cache."""
        start, stop = first * BLOCK_BYTES, min(end * BLOCK_BYTES, info.bytes)
        if not self._copies.cache.reserved(file, start, stop - start):
            return False
        at, data = self._copies.objects.read(info.file, start, stop, size=info.bytes)
        write_all(file.fileno(), data[start - at : stop - at], start)
        os.fsync(file.fileno())  # a machine that loses its power keeps no byte that tells of a block it has not
        write_all(file.fileno(), memoryview(b"\1" * (end - first)), info.bytes + first)
        return True

    def _map_file(self, key: Key, info: ShardInfo, file: FileIO) -> Mapped:
        """The map of this very file, which may be another than that of last time."""
        status = os.fstat(file.fileno())
        with self._lock:
            if self._inodes.get(key) == status.st_ino and (mapped := self._mapped.get(key)):
                return mapped
            if status.st_size == 0:
                file.truncate(info.bytes + _blocks_of(info) + 1)
            tar = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._inodes[key] = status.st_ino
            return self._keep(key, (tar, memoryview(tar)))

    def _check_whole(self, key: Key, info: ShardInfo, file: FileIO, mapped: Mapped) -> None:
        """The checksum, once all blocks are there. UserError, and the copy is gone, when it is wrong."""
        view = mapped[1]
        if view[-1] or 0 in bytes(_flags(info, view)):
            return
        found = hashlib.sha256(view[: info.bytes]).hexdigest()
        if found == info.sha256:
            os.fsync(file.fileno())
            write_all(file.fileno(), memoryview(b"\1"), len(view) - 1)
            return
        self._drop(key)
        raise UserError(
            f"{self._copies.objects.address / info.file} does not match its manifest.json: it has SHA-256 {found}, the "
            f"manifest says {info.sha256}; upload the folder again"
        )

    def _check_headers(self, split: str, row: np.void, view: memoryview) -> None:
        """The tar headers of a sample are those that the index tells of. UserError, and the copy is gone, if not."""
        shard, key = int(row["shard"]), b"%016x" % int(row["key"])
        for suffix, member in zip(MEMBERS, _MEMBER_FIELDS, strict=True):
            at, length = int(row[f"{member}_offset"]) - HEADER_BYTES, int(row[f"{member}_length"])
            if header_at(view, at, suffix) != (key, length):
                self._drop((split, shard))
                raise UserError(
                    f"{self._copies.objects.address / self._info(split, shard).file} does not match its index: at byte "
                    f"{at} there is no {key.decode()}.{suffix} of {length} bytes; upload the folder again"
                )

    def _drop(self, key: Key) -> None:
        with self._lock:
            self._mapped.pop(key, None)
        self._path(key).unlink(missing_ok=True)


def _blocks_of(info: ShardInfo) -> int:
    return -(-info.bytes // BLOCK_BYTES)


def _flags(info: ShardInfo, view: memoryview) -> memoryview:
    return view[info.bytes : info.bytes + _blocks_of(info)]


def _holds(info: ShardInfo, view: memoryview, start: int, stop: int) -> bool:
    """Whether the blocks of [start, stop) are there."""
    return 0 not in bytes(_flags(info, view)[start // BLOCK_BYTES : -(-stop // BLOCK_BYTES)])


def _spans(rows: np.ndarray) -> list[Span]:
    """Where in which shard each sample lies, from its first header to the end of its last member."""
    starts = (rows["image_offset"].astype(np.int64) - HEADER_BYTES).tolist()
    stops = (rows["metadata_offset"] + rows["metadata_length"]).tolist()
    return list(zip(rows["shard"].tolist(), zip(starts, stops, strict=True), strict=True))


def _runs(blocks: list[int]) -> Iterator[tuple[int, int]]:
    """Sorted numbers as runs [first, end), none longer than one request."""
    first = previous = None
    for block in blocks:
        if first is None:
            first = block
        elif block != previous + 1 or block - first >= _MOST_BLOCKS:  # type: ignore[operator]
            yield first, previous + 1  # type: ignore[operator]
            first = block
        previous = block
    if first is not None:
        yield first, previous + 1  # type: ignore[operator]
