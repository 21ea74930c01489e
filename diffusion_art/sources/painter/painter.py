"""The painter: an embedded data set of small synthetic paintings, picture = f(seed, index).

Sixteen manners, ten named colours, captions like WikiArt's. The caption fixes style, both colours, subject
and layout; everything else varies with the index. Only a Constellation of Surrealism fills the page whatever its
layout word. So the truth behind each caption is known, and whether a model painted what it was asked is a number
(`diffusion_art.evaluation.caption_following`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from diffusion_art.captions.captioner import ART_TEMPLATE
from diffusion_art.errors import UserError
from diffusion_art.sources.base import Picture
from diffusion_art.sources.painter.brief import Brief, Style
from diffusion_art.sources.painter.canvas import Canvas
from diffusion_art.sources.painter.palette import COLOUR_NAMES, COLOURS, PAIRS, Colour
from diffusion_art.sources.painter.styles import STYLES

T = TypeVar("T")

VERSION = 1  # raise it when any picture changes: keys hash it, so old and new shards never mix
HELD_OUT_PAIRS_PER_STYLE = 4  # of 45 unordered pairs: 9 %


@dataclass(frozen=True)
class Commission:
    """What a painting is asked to be: the truth behind its caption."""

    style: int  # index into STYLES
    colours: tuple[int, int]  # indices into COLOUR_NAMES, in the order of the title
    subject: str
    layout: str
    columns: dict[str, str]

    @property
    def caption(self) -> str:
        """`Piet Mondrian / Composition in Red and Blue, Few Planes / De Stijl / abstract / 1921`."""
        return ART_TEMPLATE.format_map(self.columns)


@dataclass(frozen=True)
class Painting:
    """One picture, and what was asked."""

    image: UInt8[np.ndarray, "h w 3"]
    commission: Commission


@cache
def held_out_pairs(style: str) -> frozenset[tuple[str, str]]:
    """The colour pairs, in either order, kept from training in `style`: the first few by BLAKE2b hash."""
    ranked = sorted(PAIRS, key=lambda pair: hashlib.blake2b(f"{style}/{pair[0]}/{pair[1]}".encode()).digest())
    return frozenset(ranked[:HELD_OUT_PAIRS_PER_STYLE])


@cache
def _pairs_of(style: str, held_out: bool) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in PAIRS if (pair in held_out_pairs(style)) == held_out)


class Painter:
    """A source of `count` paintings; with `held_out`, only the combinations kept from training.

    Styles take turns (`index % len(STYLES)`), so that any stretch of the data shows all of them.
    """

    opens_at_once = True  # no file to look at
    name: str = "painter"
    columns: tuple[str, ...] | None = (
        *("title", "artist", "date", "genre", "style", "source"),
        *("description", "subject", "layout", "colours"),
    )
    caption_template: str | None = ART_TEMPLATE

    def __init__(
        self,
        *,
        seed: int = 0,
        count: int = 8192,
        image_size_px: int = 32,
        held_out: bool = False,
        chunk_size: int = 256,
    ) -> None:
        if image_size_px < 16 or image_size_px > 1024:
            raise UserError(f"The painter cannot paint at {image_size_px} px: choose image_size_px from 16 to 1024.")
        if count < 1 or seed < 0 or chunk_size < 1:
            raise UserError(
                f"The painter needs count, chunk_size >= 1 and seed >= 0, not {count}, {chunk_size}, {seed}."
            )
        self.seed = seed
        self.count = count
        self.image_size_px = image_size_px
        self.held_out = held_out
        self.chunk_size = chunk_size

    def __len__(self) -> int:
        return self.count

    def describe(self) -> dict[str, Any]:
        return {
            "painter_version": VERSION,
            "seed": self.seed,
            "count": self.count,
            "image_size_px": self.image_size_px,
            "held_out": self.held_out,
        }

    def left_out(self) -> dict[str, int]:
        return {}

    def chunks(self) -> list[tuple[int, int]]:
        """Ranges [start, stop) of indices."""
        return [(at, min(at + self.chunk_size, self.count)) for at in range(0, self.count, self.chunk_size)]

    def pictures(self, chunk: tuple[int, int]) -> Iterator[Picture]:
        for index in range(*chunk):
            painting = self.paint(index)
            identity = f"painter/{VERSION}/{'held-out' if self.held_out else 'train'}/{self.seed}/{index}"
            yield Picture(
                image=painting.image,
                columns=painting.commission.columns,
                identity=identity.encode(),
                name=f"painting {index}",
            )

    def commission(self, index: int) -> Commission:
        """What painting `index` is asked to be, without painting it: cheap."""
        rng = self._rng(index, 0)
        number = index % len(STYLES)
        style = STYLES[number]
        pair = _choice(rng, _pairs_of(style.name, self.held_out))
        names = pair if rng.random() < 0.5 else (pair[1], pair[0])
        subject, layout, artist = (_choice(rng, words) for words in (style.subjects, style.layouts, style.artists))
        return Commission(
            style=number,
            colours=(COLOUR_NAMES.index(names[0]), COLOUR_NAMES.index(names[1])),
            subject=subject,
            layout=layout,
            columns=_columns(
                style, names, subject, layout, artist, int(rng.integers(style.years[0], style.years[1] + 1))
            ),
        )

    def paint(self, index: int) -> Painting:
        """Painting `index`: the same on every call, in any process, whatever `count` is."""
        asked = self.commission(index)
        style = STYLES[asked.style]
        rng = self._rng(index, 1)
        first, second = (_vary(rng, COLOUR_NAMES[number]) for number in asked.colours)
        canvas = Canvas(self.image_size_px, ground=style.ground)
        style.paint(canvas, Brief(rng, self._rng(index, 2), first, second, asked.subject, asked.layout))
        return Painting(image=canvas.finish(), commission=asked)

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        """Stream 0 writes the caption, 1 composes, 2 places touches."""
        return np.random.Generator(np.random.PCG64([self.seed, index, int(self.held_out), stream]))


def _choice(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


def _vary(rng: np.random.Generator, name: str) -> Colour:
    """The named colour as mixed today: each channel up to 7 levels off."""
    red, green, blue = (int(np.clip(c + rng.integers(-7, 8), 0, 255)) for c in COLOURS[name])
    return red, green, blue


def _columns(style: Style, names: tuple[str, str], subject: str, layout: str, artist: str, year: int) -> dict[str, str]:
    pair = f"{names[0]} and {names[1]}"
    return {
        "title": f"{subject} in {pair}, {layout}",
        "artist": artist,
        "date": str(year),
        "genre": style.genre,
        "style": style.name,
        "source": "synthetic",
        "description": f"Synthetic, in the manner of {style.name}: {subject.lower()} in {pair.lower()}.",
        "subject": subject,
        "layout": layout,
        "colours": f"{names[0]}, {names[1]}",
    }
