"""Whether fast twins are used: where Triton is installed, unless $DIFFUSION_ART_ACCELERATE is 0."""

from __future__ import annotations

import os
from importlib.util import find_spec

VARIABLE = "DIFFUSION_ART_ACCELERATE"


def accelerates() -> bool:
    """Whether this process may use fast twins on a device that has them."""
    return os.environ.get(VARIABLE, "1").lower() not in ("0", "false", "no", "off") and find_spec("triton") is not None


ACCELERATES = accelerates()  # asked once, since a compiled region cannot read the environment
