"""Whether fast twins are used: unless $DIFFUSION_ART_ACCELERATE is 0, those in Triton where it is installed."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "DIFFUSION_ART_ACCELERATE"


def wanted() -> bool:
    """Whether this process is to use fast twins at all."""
    return os.environ.get(VARIABLE, "1").lower() not in ("0", "false", "no", "off")


def accelerates() -> bool:
    """Whether it may use those that a CUDA device has."""
    return wanted() and triton_lacks() is None


def triton_lacks() -> str | None:
    """What a kernel in Triton would fail for here, which builds a launcher in C for each; None if nothing."""
    if find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    if not os.environ.get("CC") and not any(shutil.which(name) for name in ("gcc", "clang")):
        return "Triton needs a C compiler, and neither $CC nor gcc nor clang is one here (apt-get install gcc)"
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").is_file():
        return f"Triton needs Python's C headers, and {headers} has no Python.h (apt-get install python3-dev)"
    return None


ON, ACCELERATES = wanted(), accelerates()  # asked once, since a compiled region cannot read the environment
