"""Op Art, Orphism, Futurism, Color Field: pictures that are functions of (x, y)."""

from __future__ import annotations

import math

import numpy as np

from diffusion_art.sources.painter.brief import Brief
from diffusion_art.sources.painter.canvas import Canvas, smoothstep
from diffusion_art.sources.painter.palette import CREAM, INK, Colour, mix, tint


def op_art(canvas: Canvas, brief: Brief) -> None:
    """Two colours, no neutrals, and a lattice that swells, rolls or drains away."""
    x, y = canvas.grid()
    cx, cy = brief.place(), brief.uniform(0.38, 0.62)
    dx, dy = x - cx, y - cy
    r = np.sqrt(dx * dx + dy * dy) + 1e-6
    turn = brief.uniform(0, math.pi / 2)
    cells = brief.uniform(6.2, 8.0)
    if brief.subject == "Sphere":
        radius = brief.uniform(0.34, 0.44)
        swell = np.where(r < radius, (np.arcsin(np.minimum(r / radius, 1)) * 2 / math.pi) ** 1.6 * radius / r, 1)
        u, v = dx * swell, dy * swell
        u, v = u * math.cos(turn) - v * math.sin(turn), u * math.sin(turn) + v * math.cos(turn)
        pattern = np.floor(u * cells) + np.floor(v * cells)
    elif brief.subject == "Waves":
        rows = cells * 0.9
        sway = brief.uniform(0.05, 0.09) * np.sin(2 * math.pi * (brief.uniform(1.0, 1.8) * x + brief.uniform(0, 1)))
        pinch = 1 + 0.5 * np.exp(-((dx / 0.28) ** 2))
        across = np.floor(rows * (dy + sway) * pinch)
        pattern = across + np.floor((x + sway) * cells * 0.55) if brief.chance(0.6) else across
    elif brief.subject == "Funnel":
        rings = brief.uniform(2.6, 3.4)
        spokes = 2 * brief.count(4, 6)
        twist = brief.uniform(-1.2, 1.2)
        depth = np.log(r + 0.05) * rings
        pattern = np.floor(depth) + np.floor(np.arctan2(dy, dx) / (2 * math.pi) * spokes + twist * depth / 2)
    else:  # Fold: columns that narrow towards a crease
        crease = np.sign(dx) * np.abs(dx) ** 0.62
        bend = brief.uniform(-0.25, 0.25) * np.abs(dx)
        pattern = np.floor(crease * cells) + np.floor((y + bend) * cells * 0.8)
    canvas.choose(np.mod(pattern, 2).astype(np.intp), brief.colours(flip=brief.chance(0.5)))


def orphism(canvas: Canvas, brief: Brief) -> None:
    """Discs of rings cut into sectors, the two colours changing places at every cut."""
    x, y = canvas.grid()
    a, b = brief.colours(flip=brief.chance(0.5))
    colours = [a, b, tint(a, 0.22), tint(b, 0.22), CREAM, INK]
    cx = brief.place()
    if brief.subject == "Disc":
        discs = [(cx, brief.uniform(0.42, 0.58), brief.uniform(0.42, 0.5))]
    elif brief.subject == "Two Suns":
        side = brief.sign()
        discs = [
            (cx - side * brief.uniform(0.16, 0.22), brief.uniform(0.22, 0.36), brief.uniform(0.26, 0.33)),
            (cx + side * brief.uniform(0.14, 0.2), brief.uniform(0.64, 0.78), brief.uniform(0.28, 0.36)),
        ]
    else:  # Rhythm: a chain of three
        lean = brief.uniform(-0.12, 0.12)
        discs = [(cx + lean * k, 0.5 + 0.34 * k, brief.uniform(0.23, 0.3)) for k in (-1, 1, 0)]
    split = brief.uniform(-0.6, 0.6)
    index = (x - cx + split * (y - 0.5) > 0).astype(np.intp)
    index = index + 2 * (np.floor((x + y) * brief.uniform(1.2, 1.8)) % 2 == 0)
    for dx, dy, radius in discs:
        r = np.hypot(x - dx, y - dy)
        turn = brief.uniform(0, math.pi / 2)
        angle = np.mod(np.arctan2(y - dy, x - dx) + turn, 2 * math.pi)
        sectors = 4 if brief.chance(0.7) else 2
        rings = max(3, round(radius / brief.uniform(0.09, 0.115)))
        ring = np.minimum((r / radius * rings).astype(np.intp), rings - 1)
        sector = (angle / (2 * math.pi) * sectors).astype(np.intp) % sectors  # rounding may reach a full turn
        paint = (ring + sector) % 2
        light = brief.rng.random((rings, 4))
        chosen = light[ring, sector]
        paint = np.where(chosen < 0.3, paint + 2, paint)
        paint = np.where((chosen > 0.9) & (ring > 0), 4, paint)
        paint = np.where((chosen > 0.86) & (chosen < 0.9) & (ring > 0), 5, paint)
        index = np.where(r < radius, paint, index)
    canvas.choose(index, colours)


def futurism(canvas: Canvas, brief: Brief) -> None:
    """Lines of force: shafts burst from one point, each folded into gleaming bands."""
    x, y = canvas.grid()
    cx = 0.5 + 1.7 * (brief.place() - 0.5)
    low, high = {"Street Lamp": (0.12, 0.3), "Speed": (0.4, 0.7)}.get(brief.subject, (0.8, 1.0))
    cy = brief.uniform(low, high)
    shafts = 2 * brief.count(5, 7)
    edges = np.cumsum(brief.rng.uniform(0.5, 1.6, shafts))
    angle = np.mod(np.arctan2(y - cy, x - cx) / (2 * math.pi) + brief.uniform(0, 1), 1)
    shaft = np.searchsorted(edges[:-1] / edges[-1], angle.ravel(), side="right").reshape(angle.shape)
    r = np.hypot(x - cx, y - cy)
    a, b = brief.colours()
    base = [(a, b)[k % 2] for k in range(shafts)]
    canvas.choose(shaft, base)
    step = brief.uniform(0.26, 0.4)
    phase = brief.rng.uniform(0, 1, shafts).astype(np.float32)[shaft]
    gleam = np.mod(r / step + phase, 1)  # a saw tooth: a hard edge, then a slow fade from light to dark
    canvas.wash(np.maximum(0.5 - 1.3 * gleam, 0), CREAM)
    canvas.wash(np.maximum(0.8 * (gleam - 0.6), 0), INK)
    core = 1 - smoothstep(r, 0.03, brief.uniform(0.12, 0.18))
    canvas.wash(core, INK if brief.subject == "Dancer" else CREAM)


def color_field(canvas: Canvas, brief: Brief) -> None:
    """Soft-edged blocks afloat on a field, thin at the borders so that the ground breathes through."""
    x, y = canvas.grid()
    rng = brief.rng
    ground = mix(brief.first, INK, brief.uniform(0.0, 0.12))
    breath = canvas.cloud(rng, 3) * 0.5 + canvas.cloud(rng, 7) * 0.25
    canvas.wash(np.ones_like(x), ground)
    canvas.wash(0.12 + 0.12 * breath, tint(brief.first, 0.4))
    ragged = canvas.cloud(rng, 9) * 0.012 + canvas.cloud(rng, 5) * 0.012
    soft = brief.uniform(0.022, 0.04)

    def block(left: float, top: float, right: float, bottom: float, colour: Colour, cover: float) -> None:
        inset = np.minimum(np.minimum(x - left, right - x), np.minimum(y - top, bottom - y)) + ragged
        canvas.wash(smoothstep(inset, -soft, soft) * (cover + 0.1 * breath), colour)

    margin = brief.uniform(0.06, 0.12)
    tall = brief.layout == "Tall"
    if brief.subject == "Window":
        width = brief.uniform(0.5, 0.6) if tall else brief.uniform(0.7, 0.82)
        height = brief.uniform(0.74, 0.84) if tall else brief.uniform(0.46, 0.58)
        left, top = (0.5 - width / 2 + brief.uniform(-0.04, 0.04), 0.5 - height / 2 + brief.uniform(-0.06, 0.06))
        block(left, top, left + width, top + height, brief.second, 0.95)
        if brief.chance(0.6):
            k = brief.uniform(0.2, 0.3)
            block(
                left + width * k,
                top + height * k,
                left + width * (1 - k),
                top + height * (1 - k),
                tint(brief.second, 0.3),
                0.8,
            )
    else:
        bands = 2 if brief.subject == "Two Bands" else 3
        weights = rng.uniform(0.7, 1.5, bands)
        if tall:
            weights[brief.count(0, bands - 1)] += 1.2
        gap = brief.uniform(0.05, 0.08)
        heights = weights / weights.sum() * (1 - 2 * margin - gap * (bands - 1))
        top = margin
        rest = int(heights.argmax())
        for k, height in enumerate(heights.tolist()):
            fill = brief.second if k == rest or bands == 2 else (tint(brief.first, 0.3) if k % 2 else brief.second)
            if k != rest and bands == 2:
                fill = tint(brief.second, brief.uniform(0.1, 0.3))
            block(margin, top, 1 - margin, top + height, fill, 0.93)
            top += height + gap
