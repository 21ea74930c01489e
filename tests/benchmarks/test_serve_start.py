"""The parts of `benchmarks/serve_start.py`: which files, and whether they leave the page cache."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from serve_start import files, forget


def cached(path: Path) -> bool:
    """Whether its first page can be read without waiting for the disk."""
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False


@pytest.mark.slow
def test_what_a_server_reads_is_the_run_its_code_and_what_is_installed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(b"weights")
    found = set(files(tmp_path))
    assert {checkpoint, ROOT / "diffusion_art/serve.py", ROOT / "conf/serve.yaml", Path(pytest.__file__)} <= found
    assert all(path.is_file() for path in found)


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="asks the page cache as Linux lets one ask")
def test_files_put_out_of_the_cache_are_on_the_disk_alone(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000))
    try:
        assert cached(path)
    except OSError as error:
        pytest.skip(f"this file system does not tell what is cached: {error}")
    forget([path])
    assert not cached(path)
    assert path.read_bytes() == bytes(100_000)
    assert cached(path)
