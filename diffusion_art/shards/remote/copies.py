"""Whole files copied into the cache: ranges of them read in parallel, and their SHA-256 checked before use."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

from diffusion_art.errors import UserError
from diffusion_art.files import PARTIAL, write_all
from diffusion_art.shards.manifest import ShardInfo, sha256_of
from diffusion_art.shards.remote.cache import Cache, touch
from diffusion_art.shards.remote.counts import count
from diffusion_art.shards.remote.objects import Objects

PART_BYTES = 8 * 2**20  # of a file in one request
_TRIES = 2  # of a file whose checksum is wrong: the first may have come through something that keeps old answers

log = logging.getLogger(__name__)


class Copies:
    """Copies of files of `objects` in `folder`, which is one data set's in `cache`. Thread-safe.

    `parts` is the pool that reads ranges, as many at once as the settings say.
    """

    def __init__(self, objects: Objects, cache: Cache, folder: Path) -> None:
        self.objects, self.cache, self.folder = objects, cache, folder
        self.parts = ThreadPoolExecutor(objects.address.settings.connections, "shard ranges")

    def bring(self, info: ShardInfo) -> Path:
        """The file of `info` in `folder`, copied where it is not there. Other processes wait, and find it there.

        UserError as from Objects.read and Cache.reserve, or when its bytes are not those of the manifest.
        """
        path = self.folder / info.file
        partial = path.with_name(path.name + PARTIAL)
        if self._has(path, info):
            return path
        with self.cache.claimed(partial) as file:
            try:
                if not self._has(path, info):
                    self._copy(info, file, partial)
                    partial.replace(path)
                    return path
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            partial.unlink(missing_ok=True)  # another process was first
        return path

    def _has(self, path: Path, info: ShardInfo) -> bool:
        return path.is_file() and path.stat().st_size == info.bytes and touch(path)

    def _copy(self, info: ShardInfo, file: FileIO, path: Path) -> None:
        """Fill `file`, until it is what the manifest says."""
        file.truncate(0)
        self.cache.reserve(file, info.bytes)
        file.truncate(info.bytes)
        for tries in range(1, _TRIES + 1):
            self._fill(info, file)
            found = sha256_of(path)
            if found == info.sha256:
                os.fsync(file.fileno())
                return
            where = self.objects.address / info.file
            if tries == _TRIES:
                raise UserError(
                    f"{where} does not match its manifest.json: it has SHA-256 {found}, the manifest says "
                    f"{info.sha256}; upload the folder again"
                )
            count("retries")
            log.warning("%s came with SHA-256 %s, not %s; reading it again", where, found, info.sha256)

    def _fill(self, info: ShardInfo, file: FileIO) -> None:
        step = PART_BYTES if self.objects.ranged else max(1, info.bytes)
        spans = [(start, min(start + step, info.bytes)) for start in range(0, info.bytes, step)]
        coming = [self.parts.submit(self._part, info, file.fileno(), *span) for span in spans]
        try:
            for part in coming:
                part.result()
        finally:
            for part in coming:  # none may write when the file is closed
                part.cancel()
            for part in coming:
                if not part.cancelled():
                    part.exception()

    def _part(self, info: ShardInfo, descriptor: int, start: int, stop: int) -> None:
        at, data = self.objects.read(info.file, start, stop, size=info.bytes)
        write_all(descriptor, data, at)
