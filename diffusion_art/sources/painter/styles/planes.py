"""De Stijl and Suprematism: planes and bars, locked in a grid or adrift."""

from __future__ import annotations

import math

import numpy as np

from diffusion_art.sources.painter.brief import Brief
from diffusion_art.sources.painter.canvas import Canvas, Point, turned
from diffusion_art.sources.painter.palette import CREAM, INK, STONE, tint

Box = tuple[float, float, float, float]  # left, top, right, bottom


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _area_on_page(box: Box, turn: float) -> float:
    """The part of `box`, turned about the middle of the page, that the page shows; by 49 sample points."""
    left, top, right, bottom = box
    at = (0.07, 0.21, 0.36, 0.5, 0.64, 0.79, 0.93)
    points = turned([(left + u * (right - left), top + v * (bottom - top)) for u in at for v in at], 0.5, 0.5, turn)
    return _area(box) * sum(0 <= x <= 1 and 0 <= y <= 1 for x, y in points) / len(points)


def _divide(brief: Brief, box: Box, cells: int, smallest: float) -> list[Box]:
    """Cut `box` into up to `cells` rectangles: the roomiest is cut across its longer side, over and over."""
    boxes = [box]
    while len(boxes) < cells:
        boxes.sort(key=lambda b: _area(b) * brief.uniform(0.6, 1.4))
        left, top, right, bottom = boxes.pop()
        at = brief.uniform(0.28, 0.72)
        if max(right - left, bottom - top) < 2 * smallest:
            boxes.append((left, top, right, bottom))
            break
        if (right - left) * brief.uniform(0.7, 1.4) > bottom - top:
            x = left + at * (right - left)
            boxes += [(left, top, x, bottom), (x, top, right, bottom)]
        else:
            y = top + at * (bottom - top)
            boxes += [(left, top, right, y), (left, y, right, bottom)]
    return boxes


def de_stijl(canvas: Canvas, brief: Brief) -> None:
    """Planes of two colours among cream ones, held by ink bars; now and then hung on its corner."""
    few = brief.layout == "Few Planes"
    cells = brief.count(5, 7) if few else brief.count(10, 14)
    lozenge = brief.subject == "Lozenge"
    reach = 0.72 if lozenge else 0.5  # a page turned by 45 degrees needs a longer sheet to cover the corners
    if brief.subject == "Grid":
        n = 3 if few else 4
        xs, ys = (np.cumsum(brief.rng.uniform(0.6, 1.6, n)) for _ in range(2))
        xs, ys = np.r_[0, xs / xs[-1]] - 0.5, np.r_[0, ys / ys[-1]] - 0.5
        boxes = [(xs[i], ys[j], xs[i + 1], ys[j + 1]) for i in range(n) for j in range(n)]
    else:
        boxes = _divide(brief, (-reach, -reach, reach, reach), cells, 0.16)
    turn = math.pi / 4 if lozenge else 0.0
    bar = brief.uniform(0.045, 0.062) if few else brief.uniform(0.034, 0.045)
    seen = [_area_on_page(box, turn) for box in boxes]
    painted = {brief.first: 0.0, brief.second: 0.0}
    for k in sorted(range(len(boxes)), key=lambda k: -min(seen[k], 0.34) * brief.uniform(0.75, 1.25)):
        poorer = min(painted, key=lambda c: painted[c])
        if painted[poorer] < 0.2:
            fill = poorer
            painted[poorer] += seen[k]
        else:
            fill = (CREAM, CREAM, CREAM, tint(STONE, 0.4), INK)[brief.count(0, 4) if seen[k] < 0.06 else 0]
        left, top, right, bottom = boxes[k]
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        canvas.polygon(turned(corners, 0.5, 0.5, turn), fill)
    for left, top, right, bottom in boxes:  # inner edges only: the page is cut from a larger sheet
        if left > -reach:
            canvas.line(turned([(left, top), (left, bottom)], 0.5, 0.5, turn), bar, INK)
        if top > -reach:
            canvas.line(turned([(left, top), (right, top)], 0.5, 0.5, turn), bar, INK)


def suprematism(canvas: Canvas, brief: Brief) -> None:
    """Weightless bars, a great form and a crowd of small ones, all leaning one way on a pale ground."""
    lean = (-1 if brief.layout == "Rising" else 1) * brief.uniform(0.35, 1.0)
    cx, cy = brief.uniform(0.42, 0.58), brief.uniform(0.42, 0.58)
    along, across = (math.cos(lean), math.sin(lean)), (-math.sin(lean), math.cos(lean))

    def at(u: float, v: float) -> Point:
        return cx + u * along[0] + v * across[0], cy + u * along[1] + v * across[1]

    side = brief.sign()
    if brief.subject == "Circle":
        x, y = at(side * brief.uniform(0.12, 0.22), -0.1)
        canvas.disc(x, y, brief.uniform(0.24, 0.29), brief.first)
        canvas.beam(*at(-side * 0.1, 0.12), brief.uniform(0.75, 0.95), brief.uniform(0.2, 0.25), lean, brief.second)
    elif brief.subject == "Cross":
        canvas.beam(*at(0.0, 0.0), brief.uniform(0.85, 1.0), brief.uniform(0.22, 0.28), lean, brief.first)
        canvas.beam(
            *at(brief.uniform(-0.2, 0.2), 0), brief.uniform(0.2, 0.26), brief.uniform(0.8, 0.95), lean, brief.second
        )
    elif brief.subject == "Wedge":
        x, y = at(side * 0.2, 0.0)
        canvas.disc(x, y, brief.uniform(0.25, 0.3), brief.second)
        tip, tail, half = side * brief.uniform(0.2, 0.26), -side * 0.5, brief.uniform(0.22, 0.28)
        canvas.polygon([at(tip, 0.0), at(tail, half), at(tail, -half)], brief.first)
    else:
        for k, fill in ((-1, brief.first), (1, brief.second)):
            length, width = brief.uniform(0.6, 0.85), brief.uniform(0.22, 0.29)
            skew = brief.uniform(0.6, 1.0)
            u, v = k * side * brief.uniform(0.02, 0.18), k * brief.uniform(0.15, 0.2)
            canvas.polygon(
                [
                    at(u - length / 2, v - skew * width / 2),
                    at(u + length / 2, v - width / 2),
                    at(u + length / 2, v + width / 2),
                    at(u - length / 2, v + skew * width / 2),
                ],
                fill,
            )
    for _ in range(brief.count(4, 8)):
        fill = (INK, INK, brief.first, brief.second, STONE)[brief.count(0, 4)]
        u, v = brief.uniform(-0.48, 0.48), brief.uniform(-0.46, 0.46)
        angle = lean + (math.pi / 2 if brief.chance(0.35) else 0)
        canvas.beam(*at(u, v), brief.uniform(0.1, 0.42), brief.uniform(0.022, 0.06), angle, fill)
