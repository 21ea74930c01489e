"""What the styles made of touches share: where touches fall, and the mixings of one paint."""

from __future__ import annotations

import math

import numpy as np

from diffusion_art.sources.painter.brief import Brief
from diffusion_art.sources.painter.palette import Colour, shade, tint


def scatter(brief: Brief, pitch: float) -> np.ndarray:
    """Points on a jittered lattice, in random order, a little beyond the page: even cover, no rows."""
    n = math.ceil(1 / pitch) + 2
    i, j = np.divmod(np.arange(n * n), n)
    points = (np.stack([j, i], -1) - 0.5 + brief.grain.uniform(-0.5, 0.5, (n * n, 2))) * pitch
    return points[brief.grain.permutation(n * n)]


def touches(colour: Colour, *, light: float = 0.24, dark: float = 0.16) -> list[Colour]:
    """Five mixings of one paint, from light to dark; dabs are drawn from them at random."""
    return [tint(colour, light), tint(colour, light / 2), colour, colour, shade(colour, dark)]
