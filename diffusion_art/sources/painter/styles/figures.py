"""Cubism and Surrealism: sitters in facets, creatures adrift."""

from __future__ import annotations

import math

import numpy as np

from diffusion_art.sources.painter.brief import Brief
from diffusion_art.sources.painter.canvas import Canvas, Point, blob, spline, turned
from diffusion_art.sources.painter.palette import CREAM, INK, STONE, mix, shade, tint


def _cut(shape: list[Point], x: float, y: float, angle: float) -> list[list[Point]]:
    """Both halves of a convex polygon cut by the line through (x, y) whose normal points along `angle`."""
    nx, ny = math.cos(angle), math.sin(angle)
    sides: list[list[Point]] = [[], []]
    for (ax, ay), (bx, by) in zip(shape, shape[1:] + shape[:1]):
        da, db = (ax - x) * nx + (ay - y) * ny, (bx - x) * nx + (by - y) * ny
        sides[da >= 0].append((ax, ay))
        if (da >= 0) != (db >= 0):
            t = da / (da - db)
            for side in sides:
                side.append((ax + t * (bx - ax), ay + t * (by - ay)))
    return [side for side in sides if len(side) > 2]


def _area(shape: list[Point]) -> float:
    return 0.5 * abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(shape, shape[1:] + shape[:1])))


def _facets(brief: Brief, count: int) -> list[list[Point]]:
    """The page in `count` facets: the largest is cut, near its middle, along one of a few directions."""
    lean = brief.uniform(0, math.pi)
    pieces = [[(-0.02, -0.02), (1.02, -0.02), (1.02, 1.02), (-0.02, 1.02)]]
    while len(pieces) < count:
        pieces.sort(key=_area)
        shape = pieces.pop()
        x, y = np.mean(shape, axis=0).tolist()
        angle = lean + (0.0, math.pi / 2, 1.0, -0.7)[brief.count(0, 3)] + brief.uniform(-0.25, 0.25)
        pieces += _cut(shape, x + brief.uniform(-0.05, 0.05), y + brief.uniform(-0.05, 0.05), angle)
    return pieces


def cubism(canvas: Canvas, brief: Brief) -> None:
    """A sitter in facets, each lit from one corner: first colour for the figure, second around it."""
    x0 = brief.place()
    pieces = _facets(brief, 20 if brief.subject == "Bottle" else 26)
    line = max(0.014, 0.45 * canvas.pixel)
    width, height = {"Bottle": (0.21, 0.46), "Guitar": (0.29, 0.42)}.get(brief.subject, (0.27, 0.44))
    for shape in pieces:
        mx, my = np.mean(shape, axis=0).tolist()
        inside = abs((mx - x0) / width) ** 2.4 + abs((my - 0.52) / height) ** 2.4 < 1
        paint = brief.first if inside else brief.second
        if brief.chance(0.1):
            paint = (STONE, CREAM, mix(STONE, INK, 0.5))[brief.count(0, 2)]
        low, high = shade(paint, brief.uniform(0.1, 0.22)), tint(paint, brief.uniform(0.12, 0.34))
        far = max(shape, key=lambda p: p[0] + p[1]) if inside else max(shape, key=lambda p: p[0] - p[1])
        shades = 4
        for k in range(shades):  # shrink towards one corner: a graded plane in four flat steps
            t = k / shades
            canvas.polygon(
                [(px + (far[0] - px) * t, py + (far[1] - py) * t) for px, py in shape], mix(low, high, k / (shades - 1))
            )
        canvas.line([*shape, shape[0]], line * brief.uniform(0.6, 1.3), INK, smooth=False)
    tilt = brief.uniform(-0.35, 0.35)
    if brief.subject == "Guitar":
        cx, cy = turned([(0, 0.1)], x0, 0.5, tilt)[0]
        canvas.disc(cx, cy, 0.075, INK)
        for k in range(3):
            canvas.line(
                turned([(0.025 * (k - 1), -0.42), (0.025 * (k - 1), 0.3)], x0, 0.5, tilt),
                0.009,
                INK if k != 1 else CREAM,
            )
    elif brief.subject == "Bottle":
        canvas.line(
            turned([(-0.05, -0.42), (-0.05, -0.2), (-0.13, -0.05), (-0.13, 0.36)], x0, 0.52, tilt / 3), line * 1.4, INK
        )
        canvas.line(
            turned([(0.05, -0.42), (0.05, -0.2), (0.13, -0.05), (0.13, 0.2)], x0, 0.52, tilt / 3), line * 1.4, INK
        )
    else:  # Portrait
        for k in (-1, 1):
            ex, ey = turned([(0.085 * k, -0.12 + 0.03 * k)], x0, 0.5, tilt / 2)[0]
            canvas.ellipse(ex, ey, 0.05, 0.028, CREAM)
            canvas.disc(ex + 0.008 * k, ey, 0.022, INK)
        canvas.line(turned([(0.0, -0.14), (0.05, 0.06), (-0.01, 0.08)], x0, 0.5, tilt / 2), line * 1.4, INK)
        canvas.line(turned([(-0.05, 0.18), (0.06, 0.17)], x0, 0.5, tilt / 2), line * 1.8, INK)


def surrealism(canvas: Canvas, brief: Brief) -> None:
    """Soft creatures and ink signs adrift before a lit ground."""
    _, y = canvas.grid()
    rng = brief.rng
    canvas.wash(np.ones_like(y), brief.first)
    canvas.wash(np.clip(0.3 * (y - brief.uniform(0.2, 0.5)) + 0.08 * canvas.cloud(rng, 4), 0, 0.3), CREAM)
    line = max(0.014, 0.45 * canvas.pixel)
    x0 = brief.place()
    if brief.subject == "Creature":
        bodies = [(x0, brief.uniform(0.46, 0.58), brief.uniform(0.29, 0.34))]
    elif brief.subject == "Dialogue":
        side = brief.sign()
        bodies = [(x0 - side * 0.22, brief.uniform(0.32, 0.42), 0.22), (x0 + side * 0.2, brief.uniform(0.6, 0.7), 0.22)]
    else:  # Constellation
        bodies = [
            (brief.uniform(0.1, 0.9), (k + brief.uniform(0.3, 0.7)) / 4, brief.uniform(0.13, 0.18)) for k in range(4)
        ]
        path = spline([(bx, by) for bx, by, _ in bodies], per_span=6)
        canvas.line(path, line, INK)
    for bx, by, r in bodies:
        shape = blob(rng, bx, by, r, wobble=0.45, squash=brief.uniform(0.7, 1.0), angle=brief.uniform(0, math.pi))
        canvas.polygon([(px + 0.035, py + 0.04) for px, py in shape], shade(brief.first, 0.3))
        canvas.polygon(shape, brief.second)
        canvas.line([*shape, shape[0]], line, INK)
        if brief.chance(0.8):
            ex, ey = bx + brief.uniform(-0.3, 0.3) * r, by - brief.uniform(0.0, 0.3) * r
            canvas.disc(ex, ey, 0.3 * r, CREAM)
            canvas.disc(ex + brief.uniform(-0.05, 0.05) * r, ey, 0.15 * r, INK)
    for _ in range(brief.count(2, 4)):
        sx, sy = brief.uniform(0.06, 0.94), brief.uniform(0.06, 0.94)
        kind = brief.count(0, 2)
        if kind == 0:  # an asterisk star
            for k in range(4):
                dx, dy = 0.06 * math.cos(math.pi * k / 4), 0.06 * math.sin(math.pi * k / 4)
                canvas.line([(sx - dx, sy - dy), (sx + dx, sy + dy)], line, INK)
        elif kind == 1:  # a tadpole
            canvas.line(spline([(sx, sy), (sx + 0.08, sy + 0.06), (sx + 0.06, sy + 0.15)]), line, INK)
            canvas.disc(sx, sy, 0.035, INK)
        else:
            canvas.disc(sx, sy, brief.uniform(0.03, 0.05), CREAM if brief.chance(0.5) else INK)
