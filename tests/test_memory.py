"""Freed memory is kept for the next tensors."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Page faults of a hundred blocks of 8 MiB, one after the other, each written to from end to end, as a step's are.
PROGRAM = """
import resource, sys
import numpy as np
from diffusion_art.memory import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.empty(2**23, dtype=np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_memory()
np.empty(2**23, dtype=np.uint8).fill(1)
print(kept, faults())
"""


def _said(**variables: str) -> tuple[bool, int]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | variables
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    kept, faults = program.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to")
def test_large_blocks_come_from_memory_used_before():
    kept, faults = _said()
    assert kept
    assert faults < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to")
def test_thresholds_that_a_person_has_set_stay():
    kept, faults = _said(MALLOC_MMAP_THRESHOLD_="131072")
    assert not kept
    assert faults > 100 * 2**23 // 2**21  # at least one for each page of memory, however large pages are
