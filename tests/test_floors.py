"""The house stands on its floors: imports point down, and each outside library has its home."""

from __future__ import annotations

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


def test_importing_the_package_loads_no_torch():
    streaming = ("streaming.server.run", "streaming.client.readers", "streaming.eir.client")
    modules = (*streaming, "sources.detect", "shards.__main__", "prepare", "stream")
    imports = "; ".join(f"import diffusion_art.{name}" for name in modules)
    code = f"import sys; {imports}; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "False"
