"""Group norm in Triton over channels-last maps [n p c], p = h w, forwards and backwards.

    y = act(a x + d)          a = k w / s,   d = k (b + (o - m) w / s) + shift,   k = 1 + scale
    dx = a g + e (x - x_c) + f,   g = dy act'(a x + d)

with m and s the mean and deviation of a picture's group, x_c the mean of its channel, o an offset of each channel that
is added to x first, and e, f from the sums of g and g (x - x_c) over each channel. So both ways are two passes over the
maps, each of them contiguous, with a small kernel between that makes [n c] coefficients from [n splits c] sums. The
`splits` parts of a map are summed by programs of their own, so that a small batch keeps all processors busy. Nothing
is added atomically: the same input gives the same bits. Sums are in float32.

Paper: Wu & He 2018, https://arxiv.org/abs/1803.08494
"""

# Triton takes plain numbers for its constants:
# pyright: reportArgumentType=false
from __future__ import annotations

from typing import no_type_check  # a checker of shapes would put its own function in a kernel's place

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE, GRADIENT_TILE = 4096, 2048  # numbers of a map that a program holds at a time
PROGRAMS = 1024  # enough to fill a large GPU a few times
MOST_SPLITS = 128
SPLITS_AT_A_TIME = 16
MOST_CHANNELS = 128  # of a tile, 256 contiguous bytes in bfloat16


@triton.jit
@no_type_check
def _piece(c, splits, BC: tl.constexpr):
    """What a program over maps works on: its row among the sums, its picture, its chunk, its channels and a mask."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1) * BC + tl.arange(0, BC)
    return row, row // splits, (row % splits).to(tl.int32), channels, channels < c


@triton.jit
@no_type_check
def _tile(start, last, inside, BP: tl.constexpr):
    """The positions from `start` on, and a mask of those before `last` in channels that there are."""
    positions = start + tl.arange(0, BP)
    return positions, (positions < last)[:, None] & inside[None, :]


@triton.jit
@no_type_check
def _coefficients_of(coefficients, n, c, channels, inside):
    """a, d and x_c of a picture's channels."""
    coefficients += n * 3 * c + channels
    a = tl.load(coefficients, mask=inside, other=0.0)[None, :]
    d = tl.load(coefficients + c, mask=inside, other=0.0)[None, :]
    return a, d, tl.load(coefficients + 2 * c, mask=inside, other=0.0)[None, :]


@triton.jit
@no_type_check
def _silu_slope(z):
    share = tl.sigmoid(z)
    return share * (1 + z * (1 - share))


@triton.jit
@no_type_check
def _seen_and_g(x, grad, place, mask, a, d, SILU: tl.constexpr):
    """x and g = dy act'(a x + d)."""
    seen = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32)
    if SILU:
        g *= _silu_slope(a * seen + d)
    return seen, g


@triton.jit
@no_type_check
def _moments(x, parts, p, c, chunk, splits, BP: tl.constexpr, BC: tl.constexpr):
    """Mean and sum of squared deviations of each channel of one chunk: parts [n splits 2 c].

    Sums are of differences to the chunk's first position, so that a large mean costs no precision.
    """
    row, n, split, channels, inside = _piece(c, splits, BC)
    first = split * chunk
    last = tl.minimum(first + chunk, p)
    x += n * p * c
    origin = tl.load(x + first * c + channels, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([BP, BC], tl.float32)
    squares = tl.zeros([BP, BC], tl.float32)
    for start in range(first, last, BP):
        positions, mask = _tile(start, last, inside, BP)
        seen = tl.load(x + positions[:, None] * c + channels[None, :], mask=mask, other=0.0).to(tl.float32)
        seen = tl.where(mask, seen - origin[None, :], 0.0)
        total += seen
        squares += seen * seen
    sums = tl.sum(total, 0)
    mean = sums / (last - first)
    parts += row * 2 * c + channels
    tl.store(parts, origin + mean, mask=inside)
    tl.store(parts + c, tl.maximum(tl.sum(squares, 0) - sums * mean, 0.0), mask=inside)


@triton.jit
@no_type_check
def _coefficients(
    parts,
    weight,
    bias,
    scale,
    shift,
    offset,
    coefficients,
    statistics,
    p,
    c,
    size,
    chunk,
    splits,
    scale_stride,
    shift_stride,
    eps,
    SCALED: tl.constexpr,
    OFFSET: tl.constexpr,
    BS: tl.constexpr,
    BG: tl.constexpr,
):
    """One group of one picture: coefficients [n 3 c] are a, d and x_c; statistics [n 2 g] are m and 1 / s."""
    n, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lanes = tl.arange(0, BG)
    inside = lanes < size
    channels = group * size + lanes
    added = tl.zeros([BG], tl.float32)
    if OFFSET:
        added = tl.load(offset + channels, mask=inside, other=0.0).to(tl.float32)
    parts += n * splits * 2 * c
    sums = tl.zeros([BS, BG], tl.float32)
    for start in range(0, splits, BS):
        part = start + tl.arange(0, BS)
        mask = (part < splits)[:, None] & inside[None, :]
        count = tl.minimum(chunk, p - part * chunk).to(tl.float32)[:, None]
        mean = tl.load(parts + part[:, None] * 2 * c + channels[None, :], mask=mask, other=0.0)
        sums += tl.where(mask, count * mean, 0.0)
    of_channel = tl.sum(sums, 0) / p
    centre = tl.sum(tl.where(inside, of_channel + added, 0.0), 0) / size
    sums = tl.zeros([BS, BG], tl.float32)
    for start in range(0, splits, BS):
        part = start + tl.arange(0, BS)
        mask = (part < splits)[:, None] & inside[None, :]
        count = tl.minimum(chunk, p - part * chunk).to(tl.float32)[:, None]
        place = parts + part[:, None] * 2 * c + channels[None, :]
        apart = tl.load(place, mask=mask, other=0.0) + added[None, :] - centre
        sums += tl.where(mask, tl.load(place + c, mask=mask, other=0.0) + count * apart * apart, 0.0)
    steep = tl.rsqrt(tl.sum(tl.sum(sums, 0), 0) / (size * p) + eps)
    a = tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32) * steep
    d = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32) + (added - centre) * a
    if SCALED:
        k = 1 + tl.load(scale + n * scale_stride + channels, mask=inside, other=0.0).to(tl.float32)
        a *= k
        d = d * k + tl.load(shift + n * shift_stride + channels, mask=inside, other=0.0).to(tl.float32)
    coefficients += n * 3 * c + channels
    tl.store(coefficients, a, mask=inside)
    tl.store(coefficients + c, d, mask=inside)
    tl.store(coefficients + 2 * c, of_channel, mask=inside)
    groups = c // size
    tl.store(statistics + n * 2 * groups + group, centre)
    tl.store(statistics + (n * 2 + 1) * groups + group, steep)


@triton.jit
@no_type_check
def _affine(x, coefficients, y, p, c, chunk, splits, SILU: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """y = act(a x + d)."""
    _, n, split, channels, inside = _piece(c, splits, BC)
    a = tl.load(coefficients + n * 3 * c + channels, mask=inside, other=0.0)[None, :]
    d = tl.load(coefficients + (n * 3 + 1) * c + channels, mask=inside, other=0.0)[None, :]
    last = tl.minimum(split * chunk + chunk, p)
    for start in range(split * chunk, last, BP):
        positions, mask = _tile(start, last, inside, BP)
        place = n * p * c + positions[:, None] * c + channels[None, :]
        z = a * tl.load(x + place, mask=mask, other=0.0).to(tl.float32) + d
        if SILU:
            z = z * tl.sigmoid(z)
        tl.store(y + place, z.to(y.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check
def _gradient_sums(
    x, grad, coefficients, parts, p, c, chunk, splits, SILU: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    """Sums of g and of g (x - x_c) over each channel of one chunk: parts [n splits 2 c]."""
    row, n, split, channels, inside = _piece(c, splits, BC)
    a, d, centre = _coefficients_of(coefficients, n, c, channels, inside)
    total = tl.zeros([BP, BC], tl.float32)
    moments = tl.zeros([BP, BC], tl.float32)
    last = tl.minimum(split * chunk + chunk, p)
    for start in range(split * chunk, last, BP):
        positions, mask = _tile(start, last, inside, BP)
        place = n * p * c + positions[:, None] * c + channels[None, :]
        seen, g = _seen_and_g(x, grad, place, mask, a, d, SILU)
        total += g
        moments += g * (seen - centre)
    parts += row * 2 * c + channels
    tl.store(parts, tl.sum(total, 0), mask=inside)
    tl.store(parts + c, tl.sum(moments, 0), mask=inside)


@triton.jit
@no_type_check
def _gradient_coefficients(
    parts,
    weight,
    bias,
    scale,
    offset,
    coefficients,
    statistics,
    slopes,
    learned,
    grad_scale,
    grad_shift,
    p,
    c,
    size,
    splits,
    scale_stride,
    SCALED: tl.constexpr,
    OFFSET: tl.constexpr,
    BS: tl.constexpr,
    BG: tl.constexpr,
):
    """One group of one picture: slopes [n 2 c] are e and f; learned [n 3 c] its part of the gradients of weight, bias
    and offset.
    """
    n, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    groups = c // size
    lanes = tl.arange(0, BG)
    inside = lanes < size
    channels = group * size + lanes
    parts += n * splits * 2 * c
    sums = tl.zeros([BS, BG], tl.float32)
    moments = tl.zeros([BS, BG], tl.float32)
    for start in range(0, splits, BS):
        part = start + tl.arange(0, BS)
        mask = (part < splits)[:, None] & inside[None, :]
        place = parts + part[:, None] * 2 * c + channels[None, :]
        sums += tl.load(place, mask=mask, other=0.0)
        moments += tl.load(place + c, mask=mask, other=0.0)
    of_g = tl.sum(sums, 0)
    coefficients += n * 3 * c + channels
    a = tl.load(coefficients, mask=inside, other=0.0)
    apart = tl.load(coefficients + 2 * c, mask=inside, other=0.0) - tl.load(statistics + n * 2 * groups + group)
    if OFFSET:
        apart += tl.load(offset + channels, mask=inside, other=0.0).to(tl.float32)
    steep = tl.load(statistics + (n * 2 + 1) * groups + group)
    of_normed = tl.where(inside, steep * (tl.sum(moments, 0) + apart * of_g), 0.0)  # sum of g (x + o - m) / s
    w = tl.load(weight + channels, mask=inside, other=0.0).to(tl.float32)
    k = tl.full([BG], 1.0, tl.float32)
    if SCALED:
        k += tl.load(scale + n * scale_stride + channels, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
        to_scale = (w * of_normed + b * of_g).to(grad_scale.dtype.element_ty)
        tl.store(grad_scale + n * c + channels, to_scale, mask=inside)
        tl.store(grad_shift + n * c + channels, of_g.to(grad_shift.dtype.element_ty), mask=inside)
    e = -steep * steep * tl.sum(w * k * of_normed, 0) / (size * p)
    f = e * apart - steep * tl.sum(w * k * of_g, 0) / (size * p)
    slopes += n * 2 * c + channels
    tl.store(slopes, tl.zeros([BG], tl.float32) + e, mask=inside)
    tl.store(slopes + c, f, mask=inside)
    learned += n * 3 * c + channels
    tl.store(learned, k * of_normed, mask=inside)
    tl.store(learned + c, k * of_g, mask=inside)
    tl.store(learned + 2 * c, a * of_g + p * f, mask=inside)


@triton.jit
@no_type_check
def _gradient(
    x, grad, coefficients, slopes, out, p, c, chunk, splits, SILU: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    """dx = a g + e (x - x_c) + f."""
    _, n, split, channels, inside = _piece(c, splits, BC)
    a, d, centre = _coefficients_of(coefficients, n, c, channels, inside)
    slopes += n * 2 * c + channels
    e = tl.load(slopes, mask=inside, other=0.0)[None, :]
    f = tl.load(slopes + c, mask=inside, other=0.0)[None, :]
    last = tl.minimum(split * chunk + chunk, p)
    for start in range(split * chunk, last, BP):
        positions, mask = _tile(start, last, inside, BP)
        place = n * p * c + positions[:, None] * c + channels[None, :]
        seen, g = _seen_and_g(x, grad, place, mask, a, d, SILU)
        tl.store(out + place, (a * g + e * (seen - centre) + f).to(out.dtype.element_ty), mask=mask)


# ---------------------------------------------------------------------- how they are launched


class Plan:
    """How maps of one shape are cut: `channels` of a tile, `splits` of `chunk` positions."""

    def __init__(self, x: Tensor, groups: int, *, tile: int) -> None:
        self.n, self.c, height, width = x.shape
        self.p, self.groups, self.size = height * width, groups, self.c // groups
        self.channels = tile_channels(self.c)
        self.rows = tile // self.channels
        blocks = triton.cdiv(self.c, self.channels)
        wanted = min(triton.cdiv(PROGRAMS, self.n * blocks), triton.cdiv(self.p, self.rows), MOST_SPLITS)
        self.chunk = triton.cdiv(triton.cdiv(self.p, wanted), self.rows) * self.rows
        self.splits = triton.cdiv(self.p, self.chunk)
        self.over_maps = (self.n * self.splits, blocks)
        self.over_groups = (self.n, groups)
        self.tiles = {"BP": self.rows, "BC": self.channels}
        self.lanes = {"BS": SPLITS_AT_A_TIME, "BG": triton.next_power_of_2(max(self.size, 16))}

    def numbers(self, x: Tensor, *shape: int) -> Tensor:
        return torch.empty(self.n, *shape, dtype=torch.float32, device=x.device)


def tile_channels(c: int) -> int:
    """The most channels of a tile that leave no lane idle, or, where they would be few, the next power of two."""
    dividing = min(c & -c, MOST_CHANNELS)
    return dividing if dividing >= 32 else min(triton.next_power_of_2(max(c, 16)), MOST_CHANNELS)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    offset: Tensor | None,
    *,
    groups: int,
    eps: float,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y like x, coefficients [n 3 c], statistics [n 2 g]; x is channels-last, scale and shift are [n c]."""
    plan = Plan(x, groups, tile=TILE)
    y = torch.empty_like(x, memory_format=torch.channels_last)
    parts = plan.numbers(x, plan.splits, 2, plan.c)
    coefficients, statistics = plan.numbers(x, 3, plan.c), plan.numbers(x, 2, groups)
    sizes = (plan.p, plan.c, plan.chunk, plan.splits)
    with torch.cuda.device_of(x):
        _moments[plan.over_maps](x, parts, *sizes, **plan.tiles)
        _coefficients[plan.over_groups](
            parts,
            weight,
            bias,
            weight if scale is None else scale,
            weight if shift is None else shift,
            weight if offset is None else offset,
            coefficients,
            statistics,
            plan.p,
            plan.c,
            plan.size,
            plan.chunk,
            plan.splits,
            0 if scale is None else scale.stride(0),
            0 if shift is None else shift.stride(0),
            eps,
            SCALED=scale is not None,
            OFFSET=offset is not None,
            **plan.lanes,
        )
        _affine[plan.over_maps](x, coefficients, y, *sizes, SILU=silu, **plan.tiles)
    return y, coefficients, statistics


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    offset: Tensor | None,
    coefficients: Tensor,
    statistics: Tensor,
    *,
    groups: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients: of x; of weight, bias and offset [3 c] in float32; of scale and of shift [n c], empty without."""
    plan = Plan(x, groups, tile=GRADIENT_TILE)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    parts = plan.numbers(x, plan.splits, 2, plan.c)
    slopes, learned = plan.numbers(x, 2, plan.c), plan.numbers(x, 3, plan.c)
    like = weight if scale is None else scale
    shape = (0,) if scale is None else (plan.n, plan.c)
    grad_scale, grad_shift = (torch.empty(shape, dtype=like.dtype, device=x.device) for _ in range(2))
    sizes = (plan.p, plan.c, plan.chunk, plan.splits)
    with torch.cuda.device_of(x):
        _gradient_sums[plan.over_maps](x, grad, coefficients, parts, *sizes, SILU=silu, **plan.tiles)
        _gradient_coefficients[plan.over_groups](
            parts,
            weight,
            bias,
            like,
            weight if offset is None else offset,
            coefficients,
            statistics,
            slopes,
            learned,
            grad_scale,
            grad_shift,
            plan.p,
            plan.c,
            plan.size,
            plan.splits,
            0 if scale is None else scale.stride(0),
            SCALED=scale is not None,
            OFFSET=offset is not None,
            **plan.lanes,
        )
        _gradient[plan.over_maps](x, grad, coefficients, slopes, out, *sizes, SILU=silu, **plan.tiles)
    return out, learned.sum(0), grad_scale, grad_shift
