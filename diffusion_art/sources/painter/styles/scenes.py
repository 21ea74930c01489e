"""Ukiyo-e and Fauvism: a mountain over the sea, a table by the wall."""

from __future__ import annotations

import math

import numpy as np

from diffusion_art.sources.painter.brief import Brief
from diffusion_art.sources.painter.canvas import Canvas, Point, blob, smoothstep, spline
from diffusion_art.sources.painter.palette import CREAM, INK, Colour, shade, tint


def ukiyo_e(canvas: Canvas, brief: Brief) -> None:
    """A woodblock print: a sky graded by the cloth, a flat mountain with snow, rows of scalloped waves."""
    _, y = canvas.grid()
    x0 = brief.place()
    sea = brief.uniform(0.62, 0.72)
    canvas.wash(np.ones_like(y), tint(brief.first, 0.3))
    canvas.wash(smoothstep(-y, -brief.uniform(0.35, 0.5), -0.02), shade(brief.first, 0.08))
    edge = max(0.012, 0.35 * canvas.pixel)
    if brief.subject == "Rising Sun":
        canvas.disc(x0, sea - brief.uniform(0.04, 0.16), brief.uniform(0.23, 0.28), brief.second)
    else:
        peak, half = brief.uniform(0.14, 0.24), brief.uniform(0.42, 0.55)
        rise = sea - peak

        def flank(side: int, down: float) -> Point:
            return x0 + side * (0.05 + (half - 0.05) * down**1.35), peak + rise * down

        steps = np.linspace(0, 1, 12).tolist()
        slope = [flank(-1, t) for t in reversed(steps)] + [flank(1, t) for t in steps]
        canvas.polygon(slope, brief.second)
        snow = brief.uniform(0.24, 0.36)
        cap = [flank(-1, t * snow) for t in (1, 0.66, 0.33, 0)] + [flank(1, t * snow) for t in (0, 0.33, 0.66, 1)]
        teeth = np.linspace(cap[-1][0], cap[0][0], 8)[1:-1].tolist()
        cap += [(tx, peak + rise * snow * (0.66 if k % 2 == 0 else 1.2)) for k, tx in enumerate(teeth)]
        canvas.polygon(cap, CREAM)
        canvas.line(slope, edge, INK)
        if brief.subject == "Moon":
            mx = x0 + (0.32 if x0 < 0.5 else -0.32)
            canvas.disc(mx, brief.uniform(0.14, 0.22), brief.uniform(0.08, 0.1), CREAM)
    for _ in range(brief.count(1, 3)):  # mist in level bands with round ends
        mx, my, length = brief.uniform(0, 1), brief.uniform(0.3, 0.6), brief.uniform(0.2, 0.4)
        canvas.line([(mx - length / 2, my), (mx + length / 2, my)], 0.045, CREAM)
        canvas.line([(mx - length / 4, my - 0.03), (mx + length * 0.6, my - 0.03)], 0.03, CREAM)
    rows = brief.count(3, 4)
    radius = brief.uniform(0.115, 0.16)
    shift = brief.uniform(0, 1)
    for row in range(rows + 1):
        wy = sea + radius * 0.75 + row * (1 - sea) / rows
        n = math.ceil(1 / (2 * radius)) + 2
        for k in range(-1, n):
            wx = (k + shift + 0.5 * (row % 2)) * 2 * radius
            for scale, fill in ((1.0, CREAM), (0.84, brief.second), (0.5, CREAM), (0.34, brief.first)):
                canvas.disc(wx, wy, radius * scale, fill)


def fauvism(canvas: Canvas, brief: Brief) -> None:
    """A still life: wall in the first colour, table in the second, things in thick ink outline."""
    a, b = brief.first, brief.second
    table = brief.uniform(0.54, 0.66)
    tilt = brief.uniform(-0.06, 0.06)
    canvas.rectangle(0, 0, 1, 1, a)
    pattern = brief.count(0, 2)
    if pattern == 0:
        for k in range(5):
            x = (k + brief.uniform(0.3, 0.7)) / 5
            canvas.line([(x, 0), (x + 0.02, table)], 0.03, tint(a, 0.3), smooth=False)
    elif pattern == 1:
        for k in range(16):
            x, y = (k % 4 + 0.5 * (k // 4 % 2) + 0.25) / 4, (k // 4 + 0.4) * table / 3.6
            canvas.polygon(blob(brief.rng, x, y, 0.045, lobes=3), tint(a, 0.35))
    else:
        wx = brief.uniform(0.05, 0.6)
        canvas.rectangle(wx, 0.05, wx + 0.3, table - 0.14, CREAM)
        canvas.rectangle(wx + 0.03, 0.08, wx + 0.27, table - 0.17, tint(b, 0.2))
        canvas.line([(wx + 0.15, 0.06), (wx + 0.15, table - 0.15)], 0.025, CREAM, smooth=False)
    canvas.polygon([(0, table - tilt), (1, table + tilt), (1, 1), (0, 1)], b)
    line = max(0.026, 0.75 * canvas.pixel)
    canvas.line([(0, table - tilt), (1, table + tilt)], line, INK, smooth=False)
    x0, foot = brief.place(), brief.uniform(0.76, 0.84)

    def outlined(points: list[Point], fill: Colour) -> None:
        canvas.polygon(points, fill)
        canvas.line([*points, points[0]], line, INK)

    def fruit(x: float, y: float, r: float, fill: Colour) -> None:
        canvas.disc(x, y, r + line / 2, INK)
        canvas.disc(x, y, r - line / 2, fill)
        canvas.disc(x - 0.35 * r, y - 0.35 * r, 0.22 * r, tint(fill, 0.6))

    def flower(x: float, y: float, r: float, fill: Colour) -> None:
        petals, turn = brief.count(5, 6), brief.uniform(0, math.pi)
        for grow, colour in ((line / 2, INK), (-line / 2, fill)):
            for k in range(petals):
                angle = turn + 2 * math.pi * k / petals
                canvas.disc(x + 0.62 * r * math.cos(angle), y + 0.62 * r * math.sin(angle), 0.4 * r + grow, colour)
        canvas.disc(x, y, 0.5 * r, fill)
        canvas.disc(x, y, 0.28 * r, INK if fill == CREAM else CREAM)

    if brief.subject == "Fruit Bowl":
        w = brief.uniform(0.3, 0.36)
        for k in range(brief.count(3, 5)):
            fruit(
                x0 + (k % 3 - 1) * w * 0.55,
                foot - 0.22 - 0.13 * (k // 3),
                brief.uniform(0.1, 0.125),
                (b, a, b, b, a)[k],
            )
        outlined(
            [(x0 - w, foot - 0.16), (x0 + w, foot - 0.16), (x0 + 0.55 * w, foot + 0.02), (x0 - 0.55 * w, foot + 0.02)],
            CREAM,
        )
    else:
        w, h = brief.uniform(0.13, 0.17), brief.uniform(0.32, 0.38)
        profile = [(-0.5, 0), (-1, -0.4), (-0.75, -0.75), (-0.45, -0.9), (-0.6, -1.05)]
        left = spline([(x0 + w * px, foot + h * py) for px, py in profile], per_span=4)
        right = [(2 * x0 - px, py) for px, py in reversed(left)]
        if brief.subject == "Vase of Flowers":
            stems = brief.count(5, 6)
            for k in range(stems):
                angle = -math.pi / 2 + (k - (stems - 1) / 2) * brief.uniform(0.38, 0.5)
                far = brief.uniform(0.12, 0.17) if k % 2 else brief.uniform(0.24, 0.32)
                fx, fy = x0 + 1.1 * far * math.cos(angle), foot - h + far * math.sin(angle)
                canvas.line([(x0, foot - h), (fx, fy)], line * 0.8, INK)
                flower(fx, fy, brief.uniform(0.1, 0.125), b if k % 2 == 0 or brief.chance(0.5) else CREAM)
        if brief.subject == "Jug":
            side = brief.sign()
            canvas.ring(x0 + side * w * 0.95, foot - 0.58 * h, 0.26 * h, line * 1.3, INK)
            x, y = x0 - side * brief.uniform(0.28, 0.36), foot + brief.uniform(-0.04, 0.06)
            fruit(x, y, brief.uniform(0.09, 0.12), a)
        outlined(left + right, CREAM)
        band = foot - 0.45 * h
        canvas.line([(x0 - 0.8 * w, band), (x0 + 0.8 * w, band)], 0.05, a, smooth=False)
    for _ in range(brief.count(1, 3)):
        fruit(brief.uniform(0.1, 0.9), brief.uniform(0.86, 0.94), brief.uniform(0.06, 0.085), a)
