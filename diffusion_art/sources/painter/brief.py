"""What a painting is asked to be (`Brief`), what a manner of painting knows (`Style`), and what the manners made of
touches share: where touches fall, and the mixings of one paint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffusion_art.sources.painter.canvas import Canvas
from diffusion_art.sources.painter.palette import CREAM, Colour, shade, tint

PLACES = {"Left": -0.18, "Centre": 0.0, "Right": 0.18}  # offset from the middle of the page, in pages


@dataclass(frozen=True)
class Brief:
    """One commission. The caption fixes the last four fields, the two generators decide the rest.

    `rng` composes the picture, and is asked the same questions at every size; `grain` places single touches,
    of which a larger page has more. So painting 17 is the same composition at 32 px and at 128 px.
    """

    rng: np.random.Generator
    grain: np.random.Generator
    first: Colour
    second: Colour
    subject: str
    layout: str

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def count(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def sign(self) -> int:
        return 1 if self.rng.random() < 0.5 else -1

    def colours(self, *, flip: bool = False) -> tuple[Colour, Colour]:
        return (self.second, self.first) if flip else (self.first, self.second)

    def place(self) -> float:
        """x of the motif for the layouts Left, Centre and Right, with a little freedom."""
        return 0.5 + PLACES[self.layout] + self.uniform(-0.05, 0.05)


@dataclass(frozen=True)
class Style:
    """A manner of painting: who worked in it, when, what they painted, and how."""

    name: str
    genre: str
    artists: tuple[str, ...]
    years: tuple[int, int]
    subjects: tuple[str, ...]
    layouts: tuple[str, ...]
    paint: Callable[[Canvas, Brief], None]
    ground: Colour = CREAM


def scatter(brief: Brief, pitch: float) -> np.ndarray:
    """Points on a jittered lattice, in random order, a little beyond the page: even cover, no rows."""
    n = math.ceil(1 / pitch) + 2
    i, j = np.divmod(np.arange(n * n), n)
    points = (np.stack([j, i], -1) - 0.5 + brief.grain.uniform(-0.5, 0.5, (n * n, 2))) * pitch
    return points[brief.grain.permutation(n * n)]


def touches(colour: Colour, *, light: float = 0.24, dark: float = 0.16) -> list[Colour]:
    """Five mixings of one paint, from light to dark; dabs are drawn from them at random."""
    return [tint(colour, light), tint(colour, light / 2), colour, colour, shade(colour, dark)]
