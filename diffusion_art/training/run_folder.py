"""A run folder belongs to one run at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion_art.errors import UserError

log = logging.getLogger(__name__)

LOCK_FILE = ".running"
HELD_VARIABLE = "DIFFUSION_ART_HELD_RUN"  # for the processes that a run starts in its own folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside the block no other process can hold `folder`.

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
        _lock(folder, file)
        yield


def _lock(folder: Path, file) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            log.debug("%s cannot be locked (%s)", folder, error)
            return
        file.seek(0)
        raise UserError(
            f"{folder} is being trained by {file.read().strip() or 'another process'}. Stop that run or wait for its "
            "end, or give this one another name: run=NAME."
        ) from None
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
