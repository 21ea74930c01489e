"""Post-Impressionism and Abstract Expressionism: strokes that follow a field, or the arm."""

from __future__ import annotations

import math

import numpy as np

from diffusion_art.sources.painter.brief import Brief, scatter, touches
from diffusion_art.sources.painter.canvas import Canvas, Point, spline
from diffusion_art.sources.painter.palette import CREAM, INK, Colour, shade, tint


def post_impressionism(canvas: Canvas, brief: Brief) -> None:
    """Long loaded strokes that follow a turning field: the sky wheels about its stars, the land rolls."""
    horizon = brief.uniform(0.6, 0.7) if brief.layout == "Wide Sky" else brief.uniform(0.38, 0.48)
    ridge, phase = brief.uniform(0.03, 0.08), brief.uniform(0, 6.3)
    whirls = [
        (brief.uniform(0.1, 0.9), horizon * brief.uniform(0.15, 0.8), brief.uniform(0.16, 0.28), brief.sign())
        for _ in range(brief.count(2, 3))
    ]
    canvas.rectangle(0, 0, 1, 1, shade(brief.first, 0.25))
    pitch = max(2.1 * canvas.pixel, 0.03)
    points = np.concatenate([scatter(brief, pitch * 1.2), scatter(brief, pitch * 1.3)])
    x, y = points[:, 0].copy(), points[:, 1].copy()
    land = y > horizon + ridge * np.sin(7 * x + phase)
    if brief.subject == "Cypresses":
        for _ in range(brief.count(1, 2)):
            tx, top = brief.uniform(0.1, 0.9), brief.uniform(0.02, 0.2)
            t = np.clip((y - top) / (1 - top), 0, 1)
            land |= (y > top) & (np.abs(x - tx - 0.02 * np.sin(14 * y)) < 0.11 * np.sqrt(t) * (1.2 - 0.5 * t))
    paths = [(x.copy(), y.copy())]
    for _ in range(3):
        u, v = np.ones_like(x) * 0.5, 0.35 * np.sin(4 * x + phase)
        for wx, wy, wr, spin in whirls:
            dx, dy = x - wx, y - wy
            pull = np.exp(-(dx * dx + dy * dy) / (2 * wr * wr)) * 3 / wr
            u, v = u - spin * dy * pull, v + spin * dx * pull
        wave = np.cos(9 * x + phase + 6 * y)
        upright = brief.subject == "Wheat Field"
        u = np.where(land, 0.25 * wave if upright else 1.0, u)
        v = np.where(land, -1.0 if upright else 0.7 * wave, v)
        norm = np.hypot(u, v) + 1e-6
        x, y = x + u / norm * pitch * 0.95, y + v / norm * pitch * 0.95
        paths.append((x.copy(), y.copy()))
    tracks = np.stack([np.stack(p, -1) for p in paths], 1).tolist()
    near = np.min([np.hypot(points[:, 0] - wx, points[:, 1] - wy) / wr for wx, wy, wr, _ in whirls], axis=0)
    glow = ~land & (near < 0.42)
    band = np.floor(near * 5).astype(int) % 2
    pick = np.where(
        land, brief.grain.integers(0, 5, len(land)), np.where(band == 1, brief.grain.integers(0, 3, len(land)), 4)
    )
    sky_paint = touches(brief.first, light=0.38, dark=0.25)
    land_paint = touches(brief.second, light=0.25, dark=0.25)
    star = [tint(brief.second, 0.15), tint(brief.second, 0.45), CREAM]
    for track, k, is_land, g in zip(tracks, pick.tolist(), land.tolist(), glow.tolist()):
        fill = land_paint[k] if is_land else star[k % 3] if g else sky_paint[k]
        canvas.line(track, pitch * 0.72, fill, smooth=False)


def _swing(brief: Brief, spread: float, knots: int) -> list[Point]:
    """A curve that wanders about the page in steps of `spread`, as an arm does."""
    heading, x, y = brief.uniform(0, 2 * math.pi), brief.uniform(0.1, 0.9), brief.uniform(0.1, 0.9)
    points = []
    for _ in range(knots):
        points.append((x, y))
        heading += brief.uniform(-1.9, 1.9)
        x = min(max(x + spread * math.cos(heading), -0.05), 1.05)
        y = min(max(y + spread * math.sin(heading), -0.05), 1.05)
    return spline(points)


def _slab(canvas: Canvas, brief: Brief, fill: Colour, width: float) -> None:
    """One pull of a broad brush, with the marks of its bristles."""
    path = np.array(_swing(brief, 0.42, brief.count(2, 3)))
    canvas.line(path, width, fill, smooth=False)
    for _ in range(4):
        bristle = tint(fill, 0.3) if brief.chance(0.5) else shade(fill, 0.25)
        canvas.line(path + brief.rng.uniform(-0.45, 0.45, 2) * width, 0.012, bristle, smooth=False)


def abstract_expressionism(canvas: Canvas, brief: Brief) -> None:
    """Raw canvas and the arm's whole swing: ropes of poured paint, or slabs of the house brush."""
    dense = brief.layout == "All Over"
    if brief.subject == "Gesture":
        for k in range(10 if dense else 8):
            width = brief.uniform(0.11, 0.16) if dense else brief.uniform(0.13, 0.18)
            _slab(canvas, brief, brief.colours()[k % 2], width)
        for _ in range(brief.count(1, 2)):
            canvas.line(_swing(brief, 0.4, 3), brief.uniform(0.03, 0.05), INK)
    else:
        for k in range(2 * (brief.count(9, 11) if dense else brief.count(7, 8))):
            rope = _swing(brief, 0.24, brief.count(5, 7))
            canvas.line(rope, brief.uniform(0.03, 0.055), brief.colours()[k % 2])
        for _ in range(brief.count(2, 4)):
            canvas.line(_swing(brief, 0.24, brief.count(4, 6)), brief.uniform(0.012, 0.022), INK)
    for _ in range(brief.count(24, 44)):
        fill = (brief.first, brief.second, INK)[brief.count(0, 2)]
        canvas.disc(brief.uniform(0, 1), brief.uniform(0, 1), brief.uniform(0.006, 0.022), fill)
