"""What the extras of the package add, for commands to say what is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = {
    "paint": ("torch", "diffusers", "open_clip"),
    "train": ("torch", "diffusers", "open_clip", "lightning"),
    "share": ("transformers",),
    "transformers": ("transformers",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "serve": ("torch", "diffusers", "open_clip", "fastapi", "uvicorn"),
}


def missing(extra: str) -> list[str]:
    """The libraries of `extra` that are not installed."""
    return [name for name in NEEDED[extra] if find_spec(name) is None]


def install_command(extra: str) -> str:
    """What adds `extra`, to be typed in the clone of the repository: the package is not on PyPI."""
    python = ".venv/bin/python" if Path(sys.prefix).name == ".venv" else "python"
    return f"{python} -m pip install -e '.[{extra}]'"


def check_extra(extra: str) -> None:
    """End the process with one sentence where a library of `extra` is not installed."""
    if lacking := missing(extra):
        sys.exit(
            f"error: this command needs {', '.join(lacking)}, which the bare package leaves out. "
            f"Install the rest: {install_command(extra)}"
        )
