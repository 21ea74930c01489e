"""Small real things that many tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusion_art.data.build import build_shards
from diffusion_art.sources.painter import Painter

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def painter_shards(tmp_path_factory) -> Path:
    """150 paintings of 16 px as shards: about 120 to train on."""
    out = tmp_path_factory.mktemp("data") / "painter-16px"
    painter = Painter(count=150, image_size_px=16)
    build_shards(painter, out, image_size_px=16, val_fraction=0.2, progress=False, workers=1)
    return out


@pytest.fixture
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_command("train", "seed=1", cwd=...)` runs the real command and returns what it said."""

    def run(name: str, *arguments: str, cwd: Path = ROOT, timeout: float = 300, env: dict | None = None):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
            **(env or {}),
        }
        environment["PYTHONPATH"] = str(ROOT)
        return subprocess.run(
            [sys.executable, "-m", f"diffusion_art.{name}", *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
