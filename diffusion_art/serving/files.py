"""Pictures that were answered as a url: kept in memory for a while, under names that cannot be guessed.

Nothing touches the disk, so nothing is left behind by a server that dies.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    content: bytes
    media_type: str
    expires: float  # on the clock of its `Files`


class Files:
    """Each file lives `lifetime_s`; when all of them exceed `max_bytes`, the oldest go before their time."""

    def __init__(self, *, lifetime_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.lifetime_s, self.max_bytes = lifetime_s, max_bytes
        self.bytes = 0
        self._clock = clock
        self._files: OrderedDict[str, File] = OrderedDict()  # oldest first, so the first to expire

    def __len__(self) -> int:
        self._expire()
        return len(self._files)

    def put(self, content: bytes, media_type: str) -> str:
        """Keep a file. Returns its name, 128 random bits and an ending."""
        name = f"{secrets.token_urlsafe(16)}.{media_type.partition('/')[2]}"
        self._files[name] = File(content, media_type, self._clock() + self.lifetime_s)
        self.bytes += len(content)
        self._expire()
        return name

    def get(self, name: str) -> tuple[File, float] | None:
        """The file and the seconds it has left, or None when there is none (any more)."""
        self._expire()
        file = self._files.get(name)
        return None if file is None else (file, file.expires - self._clock())

    def _expire(self) -> None:
        now = self._clock()
        while self._files:
            name, file = next(iter(self._files.items()))
            if file.expires > now and self.bytes <= self.max_bytes:
                return
            del self._files[name]
            self.bytes -= len(file.content)
