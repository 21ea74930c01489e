"""Sides that take turns on one device, and what the device reaches between the turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from diffusion_art.tensors import Batch
from gpu_sides.ground import Ground, accelerated

REPEATS = 10  # of a ceiling's measurement, whose median counts
LEAST_TURNS = 3


@dataclass
class Side:
    """One way to train: what it does with the parts of a step, and where these come from."""

    step: Callable[..., None]  # one argument for each part
    feed: Iterator[list[Batch]]
    fast: bool = True  # with our fast twins, where the device has them

    def seconds(self, ground: Ground, steps: int) -> float:
        """Of one step, a mean over `steps`."""
        with accelerated(self.fast):
            ground.wait()
            began = time.perf_counter()
            for _ in range(steps):
                self.step(*[ground.sent(part) for part in next(self.feed)])
            ground.wait()
        return (time.perf_counter() - began) / steps


Seconds = dict[str, list[float]]


def take_turns(ground: Ground, sides: dict[str, Side], *, budget_s: float = 40.0) -> Seconds:
    """Seconds per step of each side by turns, in an order that changes; `product` is FLOP/s of a matrix product then.

    After `budget_s` no further turn begins, if there were three.
    """
    for name, side in sides.items():
        began = time.perf_counter()
        side.seconds(ground, ground.scale.warm_up)
        print(f"  {name}: warm after {time.perf_counter() - began:.1f} s", flush=True)
    seen: Seconds = {name: [] for name in (*sides, "product")}
    until = time.perf_counter() + budget_s
    for turn in range(ground.scale.turns):
        if turn >= LEAST_TURNS and time.perf_counter() > until:
            break
        names = list(sides)
        for name in names if turn % 2 else names[::-1]:
            seen[name].append(sides[name].seconds(ground, ground.scale.steps))
        seen["product"].append(product_flops_per_s(ground))
    return seen


def ratios(seen: Seconds, of: str, to: str) -> list[float]:
    """Seconds of one side over those of another, turn by turn."""
    return [a / b for a, b in zip(seen[of], seen[to], strict=True)]


def product_flops_per_s(ground: Ground) -> float:
    """What a bf16 matrix product reaches: the ceiling of a step."""
    side = ground.scale.gemm_side
    a = torch.randn(side, side, device=ground.device).to(torch.bfloat16)
    b = torch.randn(side, side, device=ground.device).to(torch.bfloat16)
    return 2 * side**3 / median_seconds(ground, lambda: a @ b)


def copy_bytes_per_s(ground: Ground) -> float:
    """Bytes read and written a second by a copy within the device's memory: the ceiling of a norm."""
    source = torch.empty(ground.scale.copy_bytes, dtype=torch.uint8, device=ground.device).zero_()
    target = torch.empty_like(source)
    return 2 * source.numel() / median_seconds(ground, lambda: target.copy_(source))


def median_seconds(ground: Ground, call: Callable[[], object], *, repeats: int = REPEATS) -> float:
    """Of one call, by the device's own clock where it has one, after three to warm up."""
    for _ in range(3):
        call()
    return statistics.median(_seconds(ground, call) for _ in range(repeats))


def _seconds(ground: Ground, call: Callable[[], object]) -> float:
    if not ground.on_gpu:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3
