"""An anti-aliased canvas in unit coordinates: (0, 0) top left, (1, 1) bottom right.

Everything is drawn `supersample` times larger and reduced by averaging, so a picture composed once comes out
clean at 32 px and gains detail at 128 px. Shapes come from Pillow, fields (waves, rings, washes) from numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from diffusion_art.sources.painter.palette import Colour

Point = tuple[float, float]  # x, y
Path = Sequence[Sequence[float]] | np.ndarray  # points in order, as drawing takes them


@lru_cache(maxsize=4)
def _grid(side: int) -> tuple[Float32[np.ndarray, "s s"], Float32[np.ndarray, "s s"]]:
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = np.meshgrid(centres, centres)
    x.flags.writeable = y.flags.writeable = False
    return x, y


class Canvas:
    """A square sheet of `size_px`, filled with `ground`."""

    def __init__(self, size_px: int, *, ground: Colour) -> None:
        self.size_px = size_px
        self.supersample = 4 if size_px <= 48 else 3 if size_px <= 160 else 2
        self.side = size_px * self.supersample
        self._sheet(Image.new("RGB", (self.side, self.side), ground))

    def _sheet(self, image: Image.Image) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)

    @property
    def pixel(self) -> float:
        """One pixel of the finished picture, in unit coordinates."""
        return 1 / self.size_px

    def grid(self) -> tuple[Float32[np.ndarray, "s s"], Float32[np.ndarray, "s s"]]:
        """x and y of every pixel centre, for painting fields. Read-only."""
        return _grid(self.side)

    # -- shapes ------------------------------------------------------------------------------------------

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        s = self.side
        x0, y0, x1, y1 = round(left * s), round(top * s), round(right * s) - 1, round(bottom * s) - 1
        if x1 >= x0 and y1 >= y0:
            self.draw.rectangle((x0, y0, x1, y1), fill)

    def polygon(self, points: Path, fill: Colour) -> None:
        self.draw.polygon([(float(x) * self.side, float(y) * self.side) for x, y in points], fill)

    def beam(self, x: float, y: float, length: float, width: float, angle: float, fill: Colour) -> None:
        """`length` x `width` about (x, y), turned by `angle` radians (clockwise on the page)."""
        self.polygon(
            turned(
                [
                    (-length / 2, -width / 2),
                    (length / 2, -width / 2),
                    (length / 2, width / 2),
                    (-length / 2, width / 2),
                ],
                x,
                y,
                angle,
            ),
            fill,
        )

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        self.ellipse(x, y, radius, radius, fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        s = self.side
        self.draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill)

    def ring(self, x: float, y: float, radius: float, width: float, fill: Colour) -> None:
        s, r = self.side, radius + width / 2
        self.draw.ellipse(((x - r) * s, (y - r) * s, (x + r) * s, (y + r) * s), None, fill, max(1, round(width * s)))

    def pie(self, x: float, y: float, radius: float, start: float, stop: float, fill: Colour) -> None:
        """A slice from `start` to `stop`, degrees clockwise from three o'clock."""
        s = self.side
        box = ((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s)
        self.draw.pieslice(box, start, stop, fill)

    def line(self, points: Path, width: float, fill: Colour, *, smooth: bool = True) -> None:
        """A stroke through `points`, with round joints and ends if `smooth`."""
        s = self.side
        xy = [(float(x) * s, float(y) * s) for x, y in points]
        w = max(1, round(width * s))
        self.draw.line(xy, fill, w, "curve" if smooth and w > 3 and len(xy) > 2 else None)
        if smooth and w > 3:
            r = w / 2
            for x, y in (xy[0], xy[-1]):
                self.draw.ellipse((x - r, y - r, x + r, y + r), fill)

    # -- fields ------------------------------------------------------------------------------------------

    def wash(self, mask: Float32[np.ndarray, "s s"], colour: Colour | Float32[np.ndarray, "s s 3"]) -> None:
        """Lay `colour` over the sheet with opacity `mask` in [0, 1]."""
        paint = np.asarray(colour, dtype=np.float32)
        below = np.asarray(self.image, dtype=np.float32)
        above = below + np.clip(mask, 0, 1)[..., None] * (paint - below)
        self._sheet(Image.fromarray((above + 0.5).astype(np.uint8)))

    def choose(self, index: np.ndarray, colours: Sequence[Colour]) -> None:
        """Repaint the whole sheet: pixel (i, j) takes `colours[index[i, j]]`."""
        self._sheet(Image.fromarray(np.asarray(colours, dtype=np.uint8)[index]))

    def cloud(self, rng: np.random.Generator, cells: int) -> Float32[np.ndarray, "s s"]:
        """Smooth noise in about [-1, 1], `cells` bumps across."""
        coarse = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
        return np.asarray(Image.fromarray(coarse).resize((self.side, self.side), Image.Resampling.BICUBIC))

    def finish(self) -> UInt8[np.ndarray, "h w 3"]:
        """The picture, averaged down to `size_px`."""
        return np.array(self.image.reduce(self.supersample))


def turned(points: Sequence[Sequence[float]], x: float, y: float, angle: float) -> list[Point]:
    """`points` about the origin, turned by `angle` radians and moved to (x, y)."""
    c, s = math.cos(angle), math.sin(angle)
    return [(x + c * px - s * py, y + s * px + c * py) for px, py in points]


def blob(
    rng: np.random.Generator,
    x: float,
    y: float,
    radius: float,
    *,
    lobes: int = 5,
    wobble: float = 0.35,
    squash: float = 1.0,
    angle: float = 0.0,
) -> list[Point]:
    """A closed organic outline: r(phi) = radius * (1 + sum of a few random harmonics)."""
    phi = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    orders = np.arange(2, 2 + lobes)
    weight = rng.normal(0, 1, lobes) / orders
    r = radius * (
        1 + wobble * (weight[:, None] * np.cos(orders[:, None] * phi + rng.uniform(0, 2 * np.pi, (lobes, 1)))).sum(0)
    )
    r = np.clip(r, 0.35 * radius, 1.7 * radius)
    return turned(list(zip((r * np.cos(phi)).tolist(), (squash * r * np.sin(phi)).tolist())), x, y, angle)


def spline(points: Sequence[Sequence[float]], *, per_span: int = 8) -> list[Point]:
    """A Catmull-Rom curve through `points`."""
    p = np.asarray(points, dtype=np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, per_span, endpoint=False)[:, None, None]
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    ordered = curve.transpose(1, 0, 2).reshape(-1, 2)
    return [(x, y) for x, y in [*ordered.tolist(), p[-2].tolist()]]


def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, a cubic between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
