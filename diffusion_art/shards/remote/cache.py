"""A folder of copies that stays below a number of bytes: what was used longest ago goes first.

    <cache>/lock                     held while room is made
    <cache>/used                     bytes of all copies, an estimate that every eviction sets right
    <cache>/<data set>/<file>        a copy; `.partial` and `.ranges` are those that are not whole

The folder of a data set is called by 32 hexadecimal digits (`data_set_name`). What else lies in the cache is the user's
own: it is neither counted nor removed.

Several processes share it. Room is taken by allocating the file's blocks, so what is under way counts. A copy that
a process writes is locked by it (flock), which ends with the process however that ends, and a locked one is not
evicted. Evicted files are unlinked: who has one mapped reads on, and the disk has its bytes back once it is let go.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from diffusion_art.errors import UserError
from diffusion_art.files import locked
from diffusion_art.shards.remote.counts import count

_DISK_BLOCK = 512  # what st_blocks counts in
_LEAST_FREED = 20  # 1/20 of the limit: making room looks at every file
_WAIT_S = 0.05
_DATA_SET = re.compile("[0-9a-f]{32}")


class _Copy(NamedTuple):
    used_ns: int
    bytes: int
    path: Path


class Cache:
    """At most `limit_bytes` of copies below `folder`, as far as processes have let go of evicted ones."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self.before_evicting: Callable[[], object] = lambda: None  # tell here which copies were used of late
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                pass
        except OSError as error:
            raise UserError(
                f"copies of remote shards cannot be kept in {folder} ({error.strerror or error}); name another folder "
                "with data.remote.cache=FOLDER"
            ) from None

    @contextlib.contextmanager
    def claimed(self, path: Path, *, shared: bool = False) -> Iterator[FileIO]:
        """The file at `path`, made where there is none, and locked: nobody else writes it, or with `shared` removes it.

        Waits for another process, or thread, that has it.
        """
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
                if not _is_at(path, file.fileno()):  # evicted, or finished, while we waited
                    continue
                try:
                    yield file
                finally:
                    fcntl.flock(file, fcntl.LOCK_UN)  # a map of the file would keep it locked: it holds the descriptor
                return

    def reserve(self, file: FileIO, size: int) -> None:
        """Allocate the first `size` bytes of `file`, after evicting others where the limit asks for it.

        UserError when the limit, or the disk, has not that much room.
        """
        while not self.reserved(file, 0, size):
            self.make_room(size)

    def make_room(self, size: int) -> None:
        """Evict what is not locked until `size` more bytes fit, or wait a moment for those who write."""
        if size > self.limit_bytes:
            raise UserError(
                f"the cache of {self.limit_bytes} bytes cannot hold a file of {size} bytes; set "
                "data.remote.cache_bytes higher"
            )
        self.before_evicting()
        with self._locked():
            used = self._evict(self.limit_bytes - max(size, self.limit_bytes // _LEAST_FREED))
            (self.folder / "used").write_text(str(used))
        if used + size > self.limit_bytes:
            time.sleep(_WAIT_S)

    def reserved(self, file: FileIO, start: int, size: int) -> bool:
        """Allocate [start, start + size) of `file`; False where that would go over the limit."""
        with self._locked():
            used = self._noted()
            if used + size > self.limit_bytes:
                return False
            self._allocate(file, start, size)
            (self.folder / "used").write_text(str(used + size))
            return True

    def used_bytes(self) -> int:
        """What the copies take on disk."""
        return sum(copy.bytes for copy in self._copies())

    def _allocate(self, file: FileIO, start: int, size: int) -> None:
        try:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), start, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                return  # a file system that does not allocate ahead
            raise UserError(
                f"the disk of {self.folder} is full; set data.remote.cache_bytes below {self.limit_bytes}, or name "
                "another folder with data.remote.cache=FOLDER"
            ) from None

    def _evict(self, keep_bytes: int) -> int:
        """Remove what was used longest ago until no more than `keep_bytes` are left; the bytes that are."""
        copies = sorted(self._copies())
        used = sum(copy.bytes for copy in copies)
        for copy in copies:
            if used <= keep_bytes:
                break
            if _removed(copy.path):
                used -= copy.bytes
                count("evicted_bytes", copy.bytes)
        return used

    def _noted(self) -> int:
        try:
            return int((self.folder / "used").read_text())
        except (OSError, ValueError):
            return self.used_bytes()

    def _copies(self) -> Iterator[_Copy]:
        for folder in self.folder.iterdir():
            if _DATA_SET.fullmatch(folder.name) and folder.is_dir():
                yield from _files_of(folder)

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.folder / "lock")


def data_set_name(manifest: bytes) -> str:
    """The folder of the copies of a data set, of its manifest's bytes."""
    return hashlib.sha256(manifest).hexdigest()[:32]


def _files_of(folder: Path) -> Iterator[_Copy]:
    with os.scandir(folder) as files:
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                status = file.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield _Copy(status.st_mtime_ns, _DISK_BLOCK * status.st_blocks, Path(file.path))


def touch(path: Path) -> bool:
    """Note that a copy is used now, to the nanosecond: the kernel's own clock for files stands still for
    milliseconds. False where there is none.
    """
    now = time.time_ns()
    try:
        os.utime(path, ns=(now, now))
    except FileNotFoundError:
        return False
    return True


def inode_at(path: Path) -> int | None:
    """What names the file at `path`, None where there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _is_at(path: Path, descriptor: int) -> bool:
    return inode_at(path) == os.fstat(descriptor).st_ino


def _removed(path: Path) -> bool:
    """Whether the file is gone: one that is being written stays."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True
