"""The painter's ten named colours, its neutrals, and how to mix them and measure them.

Colours are 8-bit sRGB triples. They were chosen so that any two named colours lie far apart in CIELAB
(35 units of delta E 1976 or more), also from the neutrals, so that "which two colours is this picture painted in"
has one answer: `shares` gives it, pixel by pixel.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
from jaxtyping import Float, Float32, UInt8

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "Red": (206, 36, 44),
    "Orange": (242, 128, 26),
    "Yellow": (250, 212, 48),
    "Lime": (160, 206, 62),
    "Green": (30, 128, 72),
    "Turquoise": (52, 188, 190),
    "Blue": (24, 88, 190),
    "Violet": (138, 54, 154),
    "Pink": (244, 152, 186),
    "Brown": (118, 70, 38),
}
COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)
PAIRS: tuple[tuple[str, str], ...] = tuple(combinations(COLOUR_NAMES, 2))  # unordered, 45 of them

CREAM: Colour = (246, 239, 222)
INK: Colour = (30, 27, 34)
STONE: Colour = (196, 190, 178)


def mix(a: Colour, b: Colour, weight: float) -> Colour:
    """(1 - weight) * a + weight * b, in sRGB."""
    return (
        round(a[0] + (b[0] - a[0]) * weight),
        round(a[1] + (b[1] - a[1]) * weight),
        round(a[2] + (b[2] - a[2]) * weight),
    )


def tint(colour: Colour, weight: float) -> Colour:
    """Lighter: towards cream. Up to 0.3 a colour keeps its name."""
    return mix(colour, CREAM, weight)


def shade(colour: Colour, weight: float) -> Colour:
    """Darker: towards ink. Up to 0.25 a colour keeps its name."""
    return mix(colour, INK, weight)


def to_lab(rgb: UInt8[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """sRGB (D65) to CIELAB, by the formulas of IEC 61966-2-1 and CIE 15."""
    value = rgb.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@cache
def anchors() -> tuple[UInt8[np.ndarray, "n 3"], tuple[int, ...]]:
    """Reference paints (each colour, its tint, its shade), and whose each is: an index, or -1: neutral."""
    points, owners = [], []
    for index, colour in enumerate(COLOURS.values()):
        for rgb in (colour, tint(colour, 0.25), shade(colour, 0.2)):
            points.append(rgb)
            owners.append(index)
    for colour in (CREAM, INK, STONE, mix(INK, CREAM, 0.3), mix(INK, CREAM, 0.55)):
        points.append(colour)
        owners.append(-1)
    return np.array(points, dtype=np.uint8), tuple(owners)


def shares(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, " colours"]:
    """Share of the picture's pixels that each named colour covers, by nearest anchor in CIELAB.

    Pixels nearest to a neutral belong to no colour, so the shares add up to at most 1.
    """
    points, owners = anchors()
    pixels = to_lab(image.reshape(-1, 3))
    distance = ((pixels[:, None, :] - to_lab(points)[None]) ** 2).sum(-1)
    nearest = np.array(owners)[distance.argmin(1)]
    counts = np.bincount(nearest[nearest >= 0], minlength=len(COLOURS))
    return (counts / len(pixels)).astype(np.float32)
