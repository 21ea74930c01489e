"""The embedded data set: a procedural painter of small synthetic pictures with captions like WikiArt's."""

from diffusion_art.sources.painter.brief import Brief, Style
from diffusion_art.sources.painter.painter import (
    HELD_OUT_PAIRS_PER_STYLE,
    VERSION,
    Commission,
    Painter,
    Painting,
    held_out_pairs,
)
from diffusion_art.sources.painter.palette import COLOUR_NAMES, COLOURS, PAIRS, shares
from diffusion_art.sources.painter.styles import STYLES

__all__ = [
    "COLOURS",
    "COLOUR_NAMES",
    "HELD_OUT_PAIRS_PER_STYLE",
    "PAIRS",
    "STYLES",
    "VERSION",
    "Brief",
    "Commission",
    "Painter",
    "Painting",
    "Style",
    "held_out_pairs",
    "shares",
]
