"""The house stands on its floors: imports point down, and each outside library has its home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_import_contracts_hold():
    checked = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_module_imports_an_experiment(tmp_path):
    """The contract says no to one that does, in a copy of the house."""
    shutil.copytree(ROOT / "diffusion_art", tmp_path / "diffusion_art", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    module = tmp_path / "diffusion_art" / "training" / "step.py"
    module.write_text(module.read_text() + "\nfrom diffusion_art.experiments import edm\n")
    checked = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 1
    assert "diffusion_art.training is not allowed to import diffusion_art.experiments" in checked.stdout


def test_importing_the_package_loads_no_torch():
    streaming = (
        "streaming.server.run",
        "streaming.client.readers",
        "streaming.client.shard_reader",
        "streaming.eir.client",
    )
    modules = (*streaming, "sources.detect", "shards.__main__", "prepare", "stream")
    imports = "; ".join(f"import diffusion_art.{name}" for name in modules)
    code = f"import sys; {imports}; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "False"
