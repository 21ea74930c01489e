"""What the extras of the package add, for commands to say what is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

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


def check_extra(extra: str) -> None:
    """End the process with one sentence where a library of `extra` is not installed."""
    if lacking := missing(extra):
        sys.exit(
            f"error: this command needs {', '.join(lacking)}, which the bare package leaves out. "
            f"Install the rest: python -m pip install 'diffusion-art[{extra}]'"
        )
