"""Whether fast twins are used: unless $DIFFUSION_ART_ACCELERATE is 0, those in Triton where it is installed."""

from __future__ import annotations

import os
from importlib.util import find_spec

VARIABLE = "DIFFUSION_ART_ACCELERATE"


def wanted() -> bool:
    """Whether this process is to use fast twins at all."""
    return os.environ.get(VARIABLE, "1").lower() not in ("0", "false", "no", "off")


def accelerates() -> bool:
    """Whether it may use those that a CUDA device has."""
    return wanted() and find_spec("triton") is not None


ON, ACCELERATES = wanted(), accelerates()  # asked once, since a compiled region cannot read the environment
