"""The moves of Muon for many matrices at once: W <- W - lr (0.2 sqrt(max(r, c)) orthogonalise(U) + wd W).

On a CPU matrices of one shape go together, and wide and small ones are iterated by their Gram matrices
(`orthogonalise.py`). On a GPU those of like shapes share a stack: few launches, and memory for one stack at a time. A
UNet of 135 M weights has 219 hidden matrices of 39 shapes, many of them once. A zero row or column stays zero under
Newton-Schulz iteration and changes nothing else, so matrices are padded to a common shape where the products that this
adds cost less than the launches that it saves.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.accel import switch
from diffusion_art.accel.lists import add, multiply
from diffusion_art.accel.orthogonalise import ADAM_SIZE, TINY, newton_schulz, orthogonalise

Shape = tuple[int, int]  # the smaller side first

LAUNCHES = 2e10  # operations that a GPU could do while the launches of one stack more are made: some 40 us
LARGEST = 2**26  # numbers of a stack with its padding, which takes about five times as many bytes in work


def move(
    weights: list[Tensor],
    updates: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    steps: int,
    dtype: torch.dtype,
    found_inf: Float[Tensor, ""] | None = None,
) -> None:
    """Moves weights by their updates, made orthogonal in `dtype`: all are matrices.

    While `found_inf`, for a device other than the CPU, is 1, the weights stay as they are.
    """
    settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "steps": steps, "dtype": dtype}
    if weights[0].device.type != "cpu":
        move_together(weights, updates, **settings, found_inf=found_inf)
    elif switch.ON:
        move_by_shape(weights, updates, **settings)
    else:
        move_one_by_one(weights, updates, **settings)


def move_one_by_one(
    weights: list[Tensor], updates: list[Tensor], *, lr: float, weight_decay: float, steps: int, dtype: torch.dtype
) -> None:
    """As it is published."""
    for weight, update in zip(weights, updates, strict=True):
        wide = update if weight.shape[0] <= weight.shape[1] else update.mT
        x = newton_schulz((wide / (wide.norm() + TINY)).to(dtype)[None], steps=steps)[0]
        x = (x if wide is update else x.mT).to(weight.dtype)
        weight.mul_(1 - lr * weight_decay).add_(x, alpha=-lr * ADAM_SIZE * max(weight.shape) ** 0.5)


def move_by_shape(
    weights: list[Tensor], updates: list[Tensor], *, lr: float, weight_decay: float, steps: int, dtype: torch.dtype
) -> None:
    """The same, a stack for each shape."""
    alike: dict[torch.Size, list[int]] = defaultdict(list)
    for number, weight in enumerate(weights):
        alike[weight.shape].append(number)
    stacks = [torch.stack([updates[number] for number in numbers]) for numbers in alike.values()]
    for numbers, stack in zip(alike.values(), orthogonalise(*stacks, steps=steps, dtype=dtype), strict=True):
        size = ADAM_SIZE * max(stack.shape[1:]) ** 0.5
        for number, update in zip(numbers, stack, strict=True):
            weights[number].mul_(1 - lr * weight_decay).add_(update, alpha=-lr * size)


# ---------------------------------------------------------------------- on a GPU


def wide(shape: Sequence[int]) -> Shape:
    return min(shape), max(shape)


@lru_cache(maxsize=64)
def grouped(counts: tuple[tuple[Shape, int], ...]) -> list[list[Shape]]:
    """The shapes that share a stack, given how many matrices there are of each: pairs are joined while it pays."""
    of = dict(counts)
    groups = [[shape] for shape in sorted(of)]
    while True:
        gains = {(a, b): _gain(groups[a], groups[b], of) for a, b in combinations(range(len(groups)), 2)}
        best = max(gains, key=gains.__getitem__, default=None)
        if best is None or gains[best] <= 0:
            return groups
        first, second = best
        groups[first] = groups[first] + groups.pop(second)


def _gain(one: list[Shape], other: list[Shape], counts: dict[Shape, int]) -> float:
    """Operations saved by joining two groups; below zero where it costs some, or takes too much memory."""
    rows, columns = padded(one + other)
    if rows * columns * sum(counts[shape] for shape in one + other) > LARGEST:
        return -1.0
    return LAUNCHES + sum(_work(group, counts) for group in (one, other)) - _work(one + other, counts)


def _work(group: list[Shape], counts: dict[Shape, int]) -> float:
    """Floating-point operations of five iterations on a padded stack."""
    rows, columns = padded(group)
    return 5.0 * sum(counts[shape] for shape in group) * (4 * rows * rows * columns + 2 * rows**3)


def padded(group: list[Shape]) -> Shape:
    """The shape that holds all of a group."""
    return max(rows for rows, _ in group), max(columns for _, columns in group)


def move_together(
    weights: list[Tensor],
    updates: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    steps: int,
    dtype: torch.dtype,
    found_inf: Float[Tensor, ""] | None = None,
) -> None:
    """The same, in padded stacks. While `found_inf` is 1, whatever the updates hold, the weights stay as they are;
    nothing waits for its value.
    """
    numbers: dict[tuple[Shape, bool], list[int]] = {}  # by shape, and whether taller than wide
    for number, weight in enumerate(weights):
        rows, columns = weight.shape
        numbers.setdefault((wide(weight.shape), rows > columns), []).append(number)
    counts = Counter(wide(weight.shape) for weight in weights)
    keep = 1.0 - lr * weight_decay if found_inf is None else 1.0 - (1.0 - found_inf) * (lr * weight_decay)
    for group in grouped(tuple(sorted(counts.items()))):
        members = {key: numbers[key] for shape in group for key in ((shape, False), (shape, True)) if key in numbers}
        stack = _stacked(updates, members, dtype=dtype, shape=padded(group))
        stack.div_(torch.linalg.vector_norm(stack, dim=(1, 2), keepdim=True, dtype=torch.float32) + TINY)
        done = newton_schulz(stack, steps=steps)
        if found_inf is not None:
            done.masked_fill_(found_inf > 0, 0.0)
        chosen = [weights[number] for some in members.values() for number in some]
        multiply(chosen, keep)
        add(chosen, _unstacked(done, members, lr=lr, dtype=weights[0].dtype))


Members = dict[tuple[Shape, bool], list[int]]


def _stacked(updates: list[Tensor], members: Members, *, dtype: torch.dtype, shape: Shape) -> Float[Tensor, "n r c"]:
    """The members' updates, tall ones turned, in the upper left corners of zeros."""
    total = sum(len(some) for some in members.values())
    stack = torch.zeros((total, *shape), dtype=dtype, device=updates[0].device)
    first = 0
    for ((rows, columns), tall), some in members.items():
        alike = torch.stack([updates[number] for number in some])
        stack[first : first + len(some), :rows, :columns].copy_(alike.mT if tall else alike)
        first += len(some)
    return stack


def _unstacked(stack: Float[Tensor, "n r c"], members: Members, *, lr: float, dtype: torch.dtype) -> list[Tensor]:
    """What to add to each member's weights, as they lie in memory."""
    moves: list[Tensor] = []
    first = 0
    for ((rows, columns), tall), some in members.items():
        corner = stack[first : first + len(some), :rows, :columns]
        alike = (corner.mT if tall else corner).to(dtype, memory_format=torch.contiguous_format)
        moves += alike.mul_(-lr * ADAM_SIZE * columns**0.5).unbind()
        first += len(some)
    return moves
