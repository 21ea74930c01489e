"""What reading shards over a network has cost this process so far."""

from __future__ import annotations

import threading
from collections import Counter

NAMES = ("requests", "bytes", "retries", "evicted_bytes")

_counted: Counter[str] = Counter()
_lock = threading.Lock()


def count(name: str, amount: int = 1) -> None:
    """Add to the figure `name`, one of NAMES."""
    with _lock:
        _counted[name] += amount


def totals() -> dict[str, int]:
    """All figures since this process began."""
    with _lock:
        return {name: _counted[name] for name in NAMES}
