"""Freed memory is kept for the next tensors."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to")

# A command that prints the page faults of a hundred blocks, four of 20 MiB at a time, each written to from end to end,
# as the tensors of a training step are; and then of as many in a thread, as those of the serving engine are.
PROGRAM = """
import resource
import threading
import numpy as np
from diffusion_art.cli import command

def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill(rounds: int) -> None:
    for _ in range(rounds):
        blocks = [np.empty(20 * 2**20, dtype=np.uint8) for _ in range(4)]
        for block in blocks:
            block.fill(1)
        del block, blocks

def measure() -> None:
    fill(1)
    before = faults()
    fill(25)
    print(faults() - before)

@command("prepare")
def main(config):
    measure()
    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()

main()
"""


def _faults(folder: Path, **variables: str) -> tuple[int, int]:
    """In the first thread, and in another."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | variables
    (folder / "program.py").write_text(PROGRAM)
    program = [sys.executable, str(folder / "program.py")]
    done = subprocess.run(program, env=environment, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    first, other = map(int, done.stdout.split())
    return first, other


def test_large_blocks_of_a_command_come_from_memory_used_before(tmp_path):
    first, other = _faults(tmp_path)
    assert first < 100
    assert other < 100


@pytest.mark.parametrize("variables", [{"MALLOC_MMAP_THRESHOLD_": "131072"}, {"MALLOC_ARENA_MAX": "2"}])
def test_what_a_person_has_set_stays(tmp_path, variables):
    # at least one for each page of memory, however large pages are
    assert min(_faults(tmp_path, **variables)) > 100 * 20 * 2**20 // 2**21
