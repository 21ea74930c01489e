"""Pointillism and Impressionism: dots and dashes of broken colour."""

from __future__ import annotations

import numpy as np

from diffusion_art.sources.painter.brief import Brief, scatter, touches
from diffusion_art.sources.painter.canvas import Canvas, Point, turned
from diffusion_art.sources.painter.palette import CREAM, INK, Colour, mix, tint


def pointillism(canvas: Canvas, brief: Brief) -> None:
    """Dots of unmixed colour on a primed ground: sky in the first, land in the second, trading some."""
    grain = brief.grain
    horizon = brief.uniform(0.38, 0.46) if brief.layout == "High Horizon" else brief.uniform(0.56, 0.64)
    level = brief.subject == "Sail"
    slope = 0.0 if level else brief.uniform(-0.14, 0.14)
    swell, phase = (0.0 if level else brief.uniform(0.02, 0.06)), brief.uniform(0, 6.3)
    pitch = max(3.0 * canvas.pixel, 0.03)
    points = np.concatenate([scatter(brief, pitch), scatter(brief, pitch)])
    x, y = points[:, 0], points[:, 1]
    line = horizon + slope * (x - 0.5) + swell * np.sin(5 * x + phase)
    below = y > line
    light = np.where(below, 0.8 * np.sin(16 * y + 3 * x + phase), 4.5 * (y - 0.6 * horizon))
    pale = np.zeros(len(x), dtype=bool)
    if brief.subject == "Trees":
        for k in range(trees := brief.count(2, 3)):
            r = brief.uniform(0.13, 0.18)
            tx, ty = (k + brief.uniform(0.3, 0.7)) / trees, horizon - brief.uniform(0.08, 0.16)
            crown = np.hypot(x - tx, (y - ty) * 0.85) < r
            trunk = (np.abs(x - tx) < 0.03) & (y > ty) & (y < horizon + 0.12)
            light = np.where(crown, 1.2 - 5 * (x - tx + y - ty + 0.5 * r) / r * 0.4, np.where(trunk, -2.0, light))
            below = below | crown | trunk
    elif brief.subject == "River":
        bank = brief.uniform(0.3, 0.7) + 0.2 * np.sin(4 * (y - horizon) + phase)
        below &= np.abs(x - bank) > 0.06 + 0.35 * np.clip(y - line, 0, 1)
    elif brief.subject == "Sail":
        for k in range(boats := brief.count(1, 3)):
            h, foot = brief.uniform(0.3, 0.42) * (1.15 - 0.15 * boats), horizon + brief.uniform(0.05, 0.14)
            bx, side, up = (k + brief.uniform(0.35, 0.65)) / boats, brief.sign(), foot - y
            reach = side * (x - bx)
            fore = (up > 0) & (up < h) & (reach > 0.01) & (reach < 0.62 * (h - up))
            jib = (up > 0) & (up < 0.8 * h) & (reach < -0.02) & (reach > -0.42 * (0.8 * h - up))
            hull = (up < 0) & (up > -0.07) & (np.abs(reach - 0.04) < 0.5 * h + up)
            pale |= fore | jib
            below, light = below | hull, np.where(hull, -3.0, light)
    else:  # Haystacks
        for _ in range(brief.count(1, 3)):
            tx, w, h = brief.uniform(0.15, 0.85), brief.uniform(0.17, 0.24), brief.uniform(0.22, 0.32)
            side = np.abs(x - tx) / w
            stack = (side < 1) & (y < horizon + 0.12) & (y > horizon + 0.02 - h * (1 - 0.75 * side**1.5))
            below, light = below | stack, np.where(stack, 1.5 - 3 * (x - tx) / w, light)
    below ^= grain.random(len(x)) < 0.08
    pick = np.clip(np.round(2 - light + grain.normal(0, 0.9, len(x))), 0, 4).astype(int)
    kind = np.where(pale & (grain.random(len(x)) < 0.92), 2, below)
    tables = [
        touches(brief.first, light=0.32),
        touches(brief.second, light=0.32),
        [CREAM, CREAM, CREAM, tint(brief.first, 0.7), tint(brief.second, 0.7)],
    ]
    size = grain.uniform(0.46, 0.6, len(x)) * pitch
    for px, py, k, c, r in zip(x.tolist(), y.tolist(), kind.tolist(), pick.tolist(), size.tolist()):
        canvas.disc(px, py, r, tables[k][c])


def impressionism(canvas: Canvas, brief: Brief) -> None:
    """The sea in short level strokes: first colour for the sky, second for the water."""
    horizon = brief.uniform(0.34, 0.42) if brief.layout == "High Horizon" else brief.uniform(0.56, 0.64)
    canvas.rectangle(0, 0, 1, 1, brief.first)
    canvas.rectangle(0, horizon, 1, 1, brief.second)
    sun_x, sun_y = brief.uniform(0.2, 0.8), horizon * brief.uniform(0.3, 0.6)
    sun_r = brief.uniform(0.07, 0.1)
    pitch = max(2.8 * canvas.pixel, 0.034)
    points = scatter(brief, pitch)
    n = len(points)
    x, y = points[:, 0], points[:, 1]
    water = y > horizon
    length = brief.grain.uniform(1.6, 3.6, n) * pitch * np.where(water, 1.15, 0.9)
    slant = np.where(water, 0.0, brief.uniform(-0.5, 0.5)) + brief.grain.normal(0, 0.08, n)
    sky_paint, sea_paint = touches(brief.first, light=0.45, dark=0.08), touches(brief.second, dark=0.22)
    depth = np.where(water, (y - horizon) / (1 - horizon), 1 - y / horizon)
    pick = np.clip(np.round(depth * 3 + brief.grain.normal(0, 1.0, n) + 0.5), 0, 4).astype(int)
    glitter = water & (np.abs(x - sun_x) < 0.05 + 0.09 * depth) & (brief.grain.random(n) < 0.55)
    dx, dy = length / 2 * np.cos(slant), length / 2 * np.sin(slant)
    strokes = np.stack([x - dx, y - dy, x + dx, y + dy], -1).tolist()
    for (x0, y0, x1, y1), k, w, g in zip(strokes, pick.tolist(), water.tolist(), glitter.tolist()):
        fill = tint(brief.first, 0.35) if g else (sea_paint if w else sky_paint)[k]
        canvas.line([(x0, y0), (x1, y1)], pitch * 0.62, fill, smooth=False)
    boats = 1
    if brief.subject == "Sunrise":
        canvas.disc(sun_x, sun_y, sun_r, mix(brief.second, CREAM, 0.12))
        canvas.disc(sun_x - 0.01, sun_y - 0.01, sun_r * 0.7, mix(brief.second, CREAM, 0.4))
    else:
        boats = brief.count(2, 3)
    for k in range(boats):
        x0, y0 = (k + brief.uniform(0.25, 0.75)) / boats, horizon + brief.uniform(0.03, 0.2)
        _boat(canvas, brief, x0, y0, brief.uniform(0.1, 0.15) * (0.7 + y0 - horizon))


def _boat(canvas: Canvas, brief: Brief, x: float, y: float, s: float) -> None:
    """One boat of size `s` on the water line at (x, y): two sails, a skiff, or a skiff with mast and stay."""

    def polygon(points: list[Point], fill: Colour) -> None:
        canvas.polygon(turned([(s * px, s * py) for px, py in points], x, y, 0.0), fill)

    if brief.subject == "Sails":
        s, side = 1.9 * s, brief.sign()
        polygon([(0, 0), (0.02 * side, -1.6), (0.75 * side, 0)], CREAM)
        polygon([(-0.06 * side, 0), (0, -1.3), (-0.42 * side, 0)], CREAM)
        polygon([(-0.6, 0), (0.8, 0), (0.55, 0.2), (-0.4, 0.2)], INK)
        return
    polygon([(-1, 0), (1, 0), (0.7, 0.35), (-0.7, 0.35)], INK)
    canvas.line([(x - 0.1 * s, y), (x, y - 0.8 * s)], 0.3 * s, INK)
    if brief.subject == "Harbour":
        canvas.line([(x + 0.2 * s, y), (x + 0.2 * s, y - 2.4 * s)], 0.14 * s, INK)
        canvas.line([(x + 0.2 * s, y - 2.3 * s), (x + 0.9 * s, y - 0.1 * s)], 0.1 * s, INK)
