"""How this process keeps its memory."""

from __future__ import annotations

import ctypes
import os
import sys

# of mallopt(3), and the variables by which a person sets them
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
KEPT_BYTES = 2**31 - 1  # free memory that stays with the process: the most that an int says
HEAP_BYTES = 2**30  # blocks smaller than this come from memory that was used before


def keep_memory() -> bool:
    """Let the C library keep freed memory for the next tensors; whether it does, from now on.

    By default glibc gives large blocks back to the system at once. The same activations, a step later, are then pages
    that the system clears and maps anew, 4 KiB at a time: thousands of page faults in each step of a network on a CPU
    (`benchmarks/memory.py`). A thread other than the first has an arena of its own, which gives back what is empty
    whatever the thresholds say; so that the serving engine's keeps its memory too, all threads share one. The process
    stays as large as it once was, which it is again a moment later. Elsewhere than under glibc, and where the
    environment sets any of this, nothing changes.
    """
    if sys.platform != "linux" or any(os.environ.get(name) for name in MALLOC_VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {M_MMAP_THRESHOLD: HEAP_BYTES, M_TRIM_THRESHOLD: KEPT_BYTES, M_ARENA_MAX: 1}
    return all(mallopt(name, value) for name, value in settings.items())
