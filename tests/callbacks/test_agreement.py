"""Processes that were started with different settings do not train one model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_train import TINY


@pytest.mark.slow
def test_ranks_with_other_settings_are_stopped_and_without_that_train_two_models(painter_shards, tmp_path):
    words = [*TINY, f"data.path={painter_shards}", "trainer=ddp", "trainer.devices=2", "trainer.max_steps=2"]
    words += ["optim=adamw", "alignment=none", "callbacks.samples=null", "data.num_workers=0", "data.url=shards"]

    def started(name: str, *more: str) -> tuple[Path, int]:
        folder = tmp_path / name
        folder.mkdir()
        script = str(Path(__file__).with_name("two_ranks.py"))
        asked = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            script,
            str(folder),
            *words,
            *more,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        said = subprocess.run([sys.executable, *asked], env=environment, capture_output=True, text=True, timeout=280)
        return folder, said.returncode

    folder, status = started("agree")
    assert status != 0
    refused = (folder / "refused_1").read_text()
    assert refused.startswith("process 1 was started with another config (")
    assert "Start all of them with the same command" in refused
    assert not list(folder.glob("weights_*"))

    folder, status = started("differ", "callbacks.agreement=null")
    assert status == 0
    weights = {path.read_text() for path in folder.glob("weights_*")}
    assert len(weights) == 2
