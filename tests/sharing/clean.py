"""An environment with the libraries that are installed here and without this project."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path


def site_folders() -> set[Path]:
    """Where the libraries lie that a model to hand on needs."""
    specs = [importlib.util.find_spec(name) for name in ("torch", "diffusers", "transformers", "onnxruntime")]
    return {Path(str(spec.origin)).parents[1] for spec in specs if spec}


def clean_python(folder: Path) -> Path:
    """The interpreter of a new environment, whose libraries are links to those here."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for found in site_folders():
        for entry in found.iterdir():
            if "diffusion_art" not in entry.name and entry.suffix != ".pth" and not (site / entry.name).exists():
                (site / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def run_clean(python: Path, code: str, *arguments: str | Path, cwd: Path) -> str:
    """What a program prints there. `import diffusion_art` fails in it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(cwd / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout
