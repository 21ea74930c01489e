"""Freed memory is kept for the next tensors."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to")

# A command that prints the page faults of a hundred blocks of 8 MiB, one after the other, each written to from end to
# end, as those of a training step are.
PROGRAM = """
import resource
import numpy as np
from diffusion_art.cli import command

def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

@command("prepare")
def main(config):
    np.empty(2**23, dtype=np.uint8).fill(1)
    before = faults()
    for _ in range(100):
        np.empty(2**23, dtype=np.uint8).fill(1)
    print(faults() - before)

main()
"""


def _faults(folder: Path, **variables: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | variables
    (folder / "program.py").write_text(PROGRAM)
    program = [sys.executable, str(folder / "program.py")]
    done = subprocess.run(program, env=environment, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


def test_large_blocks_of_a_command_come_from_memory_used_before(tmp_path):
    assert _faults(tmp_path) < 100


def test_thresholds_that_a_person_has_set_stay(tmp_path):
    faults = _faults(tmp_path, MALLOC_MMAP_THRESHOLD_="131072")
    assert faults > 100 * 2**23 // 2**21  # at least one for each page of memory, however large pages are
