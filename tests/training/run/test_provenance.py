"""`training/run/provenance.py`: what made a checkpoint, and at which commit."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from diffusion_art.training.run.provenance import provenance

ROOT = Path(__file__).parents[3]


def test_a_checkpoint_tells_the_commit_of_the_checkout_and_its_libraries():
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if not (ROOT / ".git").exists() or head.returncode:
        pytest.skip("not a checkout that git reads")
    told = provenance()
    assert told["commit"].rstrip("+") == head.stdout.strip()
    assert told["versions"]["torch"] == version("torch")
