"""Whether what lies at a path is as it was: by the names, sizes and times of all files below it, none of them read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from diffusion_art.sources.listing import folders_above


def fingerprint(path: Path) -> str:
    """128 bits (hex) of the files at and below `path`, links followed. OSError where nothing is there."""
    lines = sorted(_lines(path))
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def changed_since(path: Path, moment_ns: int) -> bool:
    """Whether a file or folder at or below `path` is younger than `moment_ns`."""
    newest = max(status.st_mtime_ns for _, status in _walk(path))
    return newest > moment_ns


def _lines(path: Path) -> Iterator[str]:
    start = len(str(path))
    for name, status in _walk(path):
        yield f"{name[start:]}\0{status.st_size}\0{status.st_mtime_ns}"


def _walk(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(path, what stat says) of each file and folder; a folder that lies within itself by a link comes once,
    and those that hold `path` not at all."""
    status = path.stat()
    yield str(path), status
    waiting = [str(path)] if path.is_dir() else []
    seen = {(status.st_dev, status.st_ino), *folders_above(path)}
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except OSError:  # a link to nothing, or to itself
                    status = entry.stat(follow_symlinks=False)
                yield entry.path, status
                if stat.S_ISDIR(status.st_mode) and (place := (status.st_dev, status.st_ino)) not in seen:
                    seen.add(place)
                    waiting.append(entry.path)
