"""Bauhaus and Pop Art: tiles of a workshop sampler, one emblem printed over and over."""

from __future__ import annotations

import math

import numpy as np

from diffusion_art.sources.painter.brief import Brief
from diffusion_art.sources.painter.canvas import Canvas, turned
from diffusion_art.sources.painter.palette import CREAM, INK, Colour, shade, tint


def _bauhaus_tile(canvas: Canvas, brief: Brief, x: float, y: float, s: float, ground: Colour, fill: Colour) -> None:
    """One tile of side `s` with its top left corner at (x, y)."""
    canvas.rectangle(x, y, x + s, y + s, ground)
    kinds = {
        "Quarter Circles": ("quarter", "quarter", "quarter", "half", "disc"),
        "Triangles": ("triangle", "triangle", "triangle", "diamond", "half"),
        "Weaving": ("stripes", "stripes", "stripes", "square", "plain"),
    }[brief.subject]
    kind = kinds[brief.count(0, len(kinds) - 1)]
    turn = brief.count(0, 3) * math.pi / 2
    mx, my, h = x + s / 2, y + s / 2, s / 2
    if kind == "quarter":
        px, py = turned([(-h, -h)], mx, my, turn)[0]
        start = (0, 90, 180, 270)[round(turn / (math.pi / 2))]
        canvas.pie(px, py, s, start, start + 90, fill)
        if brief.chance(0.5):
            canvas.pie(px, py, s * 0.45, start, start + 90, ground)
    elif kind == "half":
        start = round(math.degrees(turn))
        canvas.pie(*turned([(-h, 0)], mx, my, turn)[0], h, start - 90, start + 90, fill)
        canvas.pie(mx, my, h, start - 90, start + 90, fill)
    elif kind == "disc":
        canvas.disc(mx, my, h * 0.82, fill)
        if brief.chance(0.4):
            canvas.disc(mx, my, h * 0.36, ground)
    elif kind == "triangle":
        canvas.polygon(turned([(-h, -h), (h, h), (-h, h)], mx, my, turn), fill)
    elif kind == "diamond":
        canvas.polygon([(mx, y), (x + s, my), (mx, y + s), (x, my)], fill)
    elif kind == "stripes":
        n = 3
        for k in range(n):
            lo, hi = -h + s * (2 * k + 0.5) / (2 * n), -h + s * (2 * k + 1.5) / (2 * n)
            canvas.polygon(turned([(-h, lo), (h, lo), (h, hi), (-h, hi)], mx, my, turn), fill)
    elif kind == "square":
        canvas.rectangle(x + s / 4, y + s / 4, x + 3 * s / 4, y + 3 * s / 4, fill)


def bauhaus(canvas: Canvas, brief: Brief) -> None:
    """A workshop sampler: square tiles of quarter circles, triangles or stripes."""
    n = 3 if brief.layout == "Three by Three" else 4
    s = 1 / n
    order = brief.rng.permutation(n * n)
    for place, cell in enumerate(order):
        # every third tile shows both colours, the others one on a neutral: shares stay balanced
        a, b = brief.colours(flip=bool(place % 2))
        neutral = (CREAM, CREAM, CREAM, INK)[brief.count(0, 3)]
        ground, fill = ((a, b), (a, neutral), (neutral, a))[place % 3]
        _bauhaus_tile(canvas, brief, float(cell % n) * s, float(cell // n) * s, s, ground, fill)


def _emblem(canvas: Canvas, subject: str, x: float, y: float, r: float, lean: float, fill: Colour, hot: Colour) -> None:
    """The repeated motif of a sheet: about (x, y), radius `r`, outlined in ink, its eye in `hot`."""
    edge = max(0.075 * r, 0.5 * canvas.pixel)
    if subject == "Flowers":
        petals = 5
        for grow, colour in ((edge, INK), (0.0, fill)):
            for k in range(petals):
                px, py = turned([(0, -0.58 * r)], x, y, lean + 2 * math.pi * k / petals)[0]
                canvas.disc(px, py, 0.4 * r + grow, colour)
        canvas.disc(x, y, 0.36 * r, INK)
        canvas.disc(x, y, 0.27 * r, hot)
    elif subject == "Hearts":
        t = np.linspace(0, 2 * np.pi, 40)
        height = (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
        outline = np.stack([np.sin(t) ** 3, -height], -1)
        for scale, colour in ((r + edge, INK), (r, fill)):
            canvas.polygon(outline * scale + (x, y), colour)
        canvas.ellipse(x - 0.45 * r, y - 0.42 * r, 0.16 * r, 0.12 * r, CREAM)
    elif subject == "Stars":
        for scale, colour in ((r + 1.6 * edge, INK), (r, fill)):
            spikes = [(scale * (0.5 if k % 2 else 1.0), lean / 2 + math.pi * k / 5) for k in range(10)]
            canvas.polygon([turned([(0, -length)], x, y, angle)[0] for length, angle in spikes], colour)
        canvas.disc(x, y, 0.2 * r, CREAM)
    else:  # Apples
        for grow, colour in ((edge, INK), (0.0, fill)):
            for k in (-1, 1):
                canvas.ellipse(x + k * 0.3 * r, y + 0.15 * r, 0.58 * r + grow, 0.75 * r + grow, colour)
        canvas.line([(x, y - 0.45 * r), (x + 0.1 * r, y - 0.95 * r)], 2 * edge, INK)
        canvas.ellipse(x + 0.4 * r, y - 0.8 * r, 0.28 * r, 0.14 * r, INK)
        canvas.ellipse(x - 0.45 * r, y - 0.1 * r, 0.13 * r, 0.22 * r, CREAM)


def pop_art(canvas: Canvas, brief: Brief) -> None:
    """One emblem printed over and over, ground and figure changing places like inks in a silk screen."""
    n = 2 if brief.layout == "Four Times" else 3
    s = 1 / n
    parity = brief.count(0, 1)
    slip = brief.uniform(-0.05, 0.05), brief.uniform(-0.05, 0.05)  # the screen is never quite in register
    size, lean = s * brief.uniform(0.36, 0.43), brief.uniform(-0.3, 0.3)
    gutter = brief.uniform(0.0, 0.015) if brief.chance(0.5) else 0.0
    dots = round(s * canvas.size_px / 5) if canvas.size_px >= 64 else 0  # Ben-Day dots, if the page can show them
    for row in range(n):
        for column in range(n):
            ground, fill = brief.colours(flip=(row + column + parity) % 2 == 1)
            x, y = column * s, row * s
            canvas.rectangle(x + gutter, y + gutter, x + s - gutter, y + s - gutter, ground)
            for k in range(dots * dots):
                dx, dy = (k % dots + 0.5) * s / dots, (k // dots + 0.5) * s / dots
                canvas.disc(x + dx, y + dy, 0.26 * s / dots, shade(ground, 0.16))
            x, y = x + s * (0.5 + slip[0]), y + s * (0.5 + slip[1])
            _emblem(canvas, brief.subject, x, y, size, lean, fill, tint(ground, 0.25))
