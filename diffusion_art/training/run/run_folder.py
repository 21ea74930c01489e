"""A run folder belongs to one run at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import shutil
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from diffusion_art.errors import UserError

log = logging.getLogger(__name__)

LOCK_FILE = ".running"
_BARE = {".hydra", LOCK_FILE, "train.log"}
_FINISHED = "finished"  # what stands in it after a run that came to its end
HELD_VARIABLE = "DIFFUSION_ART_HELD_RUN"  # for the processes that a run starts in its own folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside the block no other process can hold `folder`. One that ends without an error leaves it as the folder of a
    run that `has_finished`; so does one that ends before it has trained, in the folder of such a run.

    The lock is the kernel's (POSIX, over NFS too): it ends with its process, however that ends, so a killed run can be
    resumed at once. Where a file system has no locks, nothing is locked.

    Raises:
        UserError: a run that is going on has it.
    """
    if os.environ.get(HELD_VARIABLE) == str(folder.resolve()):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+") as file:
        finished, before = has_finished(folder), _trained_at(folder)
        locked = _lock(folder, file)
        try:
            yield
        except BaseException:
            if locked and finished and _trained_at(folder) == before:
                _write(file, _FINISHED)
            raise
        if locked:
            _write(file, _FINISHED)


def _trained_at(folder: Path) -> list[int]:
    """When a run last began to train in `folder`, and wrote figures, as file times."""
    files = (folder / "config.yaml", folder / "metrics.csv")
    return [file.stat().st_mtime_ns for file in files if file.exists()]


def is_new(folder: Path) -> bool:
    """Whether no run has had `folder` yet."""
    said = folder / "train.log"
    return not (folder / LOCK_FILE).exists() and not (said.exists() and said.stat().st_size)


def has_finished(folder: Path) -> bool:
    """Whether the run that had `folder` last came to its end, as far as the folder tells."""
    try:
        return (folder / LOCK_FILE).read_text(encoding="utf-8", errors="replace") == _FINISHED
    except OSError:
        return False


def drop_if_bare(folder: Path) -> None:
    """Remove the folder of a run that was refused at its start, which holds no more than what was typed and what was
    said; and the folder around it, if that is empty then.
    """
    with suppress(OSError):  # another process of the run may be quicker
        of_others = is_held(folder) or folder.samefile(Path.cwd())
        if not of_others and {path.name for path in folder.iterdir()} <= _BARE:
            shutil.rmtree(folder)
            folder.parent.rmdir()


def is_held(folder: Path) -> bool | None:
    """Whether another process holds `folder`, which is left as it is; None where that cannot be told."""
    try:
        with (folder / LOCK_FILE).open("rb") as file:
            asked = _UNTIL_THE_END[sys.platform](fcntl.F_WRLCK)
            (kind,) = _KIND[sys.platform].unpack_from(fcntl.fcntl(file, fcntl.F_GETLK, asked))
            return kind != fcntl.F_UNLCK
    except FileNotFoundError:
        return False
    except (OSError, KeyError):  # a file system without locks, or a system whose struct flock we do not know
        return None


# struct flock of fcntl(2): a lock of a kind on the whole file, and where that kind stands in the answer
_UNTIL_THE_END = {
    "linux": lambda kind: struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0),
    "darwin": lambda kind: struct.pack("qqihh", 0, 0, 0, kind, os.SEEK_SET),
}
_KIND = {"linux": struct.Struct("h"), "darwin": struct.Struct("20xh")}


def _lock(folder: Path, file: TextIO) -> bool:
    """Whether there are locks here."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            log.debug("%s cannot be locked (%s)", folder, error)
            return False
        file.seek(0)
        raise UserError(
            f"{folder} is being trained by {file.read().strip() or 'another process'}. Stop that run or wait for its "
            "end, or give this one another name: run=NAME."
        ) from None
    _write(file, f"process {os.getpid()} on {platform.node()}")
    return True


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
