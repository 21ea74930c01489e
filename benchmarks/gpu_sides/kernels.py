"""Single kernels against the device's memory, how many a step starts, and a picture alone against its kernels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from record import figure
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from diffusion_art.accel import switch
from diffusion_art.accel.graphs import Captured
from diffusion_art.accel.layers import group_norm
from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M
from diffusion_art.serving.engine.batch import Stepper
from diffusion_art.serving.engine.engine import Job, autocast_dtype
from diffusion_art.training.build import build_module
from gpu_sides.ground import Ground, accelerated
from gpu_sides.part import Part, Raw, Rows, compared
from gpu_sides.steps import PLAIN, before_side, our_side
from gpu_sides.turns import REPEATS, Side, copy_bytes_per_s

# ---------------------------------------------------------------------- the norm

WHAT = "group norm + SiLU, forwards and backwards, bf16 channels last"
OURS, TORCH = f"GB/s of {WHAT}: ours", f"GB/s of {WHAT}: torch's under autocast"
PASSES = 5  # x read and y written; x and its answer's gradient read, x's gradient written
NORM_GROUPS = 32


def _norm(ground: Ground) -> Raw:
    shape = ground.scale.norm_shape
    norm = nn.GroupNorm(min(NORM_GROUPS, shape[1] // 2), shape[1]).to(ground.device)
    x = torch.randn(shape, device=ground.device).to(torch.bfloat16, memory_format=torch.channels_last)
    x.requires_grad_()
    grad = torch.ones_like(x)

    def call() -> None:
        with torch.autocast(ground.device.type, torch.bfloat16):
            answer = group_norm(x, norm, silu=True)
        x.grad = None
        answer.backward(grad.to(answer.dtype))

    raw: Raw = {"bytes": PASSES * x.numel() * x.element_size(), "copy": copy_bytes_per_s(ground)}
    for name, fast in (("ours", True), ("torch", False)):
        with accelerated(fast):
            raw[name] = _kernel_seconds(ground, call)
    return raw


def _kernel_seconds(ground: Ground, call: Callable[[], object]) -> float:
    """Of its kernels alone: launching these few takes the host longer than the device needs for them."""
    for _ in range(3):
        call()
    return statistics.median(sum(kernels_of(ground, call)) for _ in range(REPEATS))


def _norm_rows(raw: Raw, about: dict[str, Any]) -> Rows:
    return [
        figure(line, raw["bytes"] / raw[side] / 1e9, copy_gb_per_s=raw["copy"] / 1e9, **about)
        for line, side in ((OURS, "ours"), (TORCH, "torch"))
    ]


norm = Part("norm", (OURS, TORCH), 5, _norm, _norm_rows)

# ---------------------------------------------------------------------- launches

SHIPPED, EAGER, BEFORE = (
    f"kernels that a step of wikiart starts: {how}"
    for how in ("as shipped", "eager with AdamW", "as shipped before, four parts")
)


def _launches(ground: Ground) -> Raw:
    def started(make: Callable[[], Side]) -> int:
        ground.clear()
        side = make()
        side.seconds(ground, ground.scale.warm_up)
        return len(kernels_of(ground, lambda: side.seconds(ground, 1)))

    return {
        SHIPPED: started(lambda: our_side(ground)),
        EAGER: started(lambda: our_side(ground, *PLAIN, "find_batch_size=false", "compile=false")),
        BEFORE: started(lambda: before_side(ground)),
    }


def _launch_rows(raw: Raw, about: dict[str, Any]) -> Rows:
    return [figure(line, number, **about) for line, number in raw.items()]


launches = Part("launches", (SHIPPED, EAGER, BEFORE), 20, _launches, _launch_rows)


def kernels_of(ground: Ground, call: Callable[[], object]) -> list[float]:
    """Seconds of each kernel and copy that `call` has the device run; without a GPU of each of torch's operators."""
    wanted = ProfilerActivity.CUDA if ground.on_gpu else ProfilerActivity.CPU
    with profile(activities=[wanted]) as seen:
        call()
        ground.wait()
    device = DeviceType.CUDA if ground.on_gpu else DeviceType.CPU
    events = [event for event in seen.events() or [] if event.device_type == device]
    taken = [event.time_range.elapsed_us() if ground.on_gpu else event.self_cpu_time_total for event in events]
    return [us / 1e6 for us in taken]


# ---------------------------------------------------------------------- one picture alone

ALONE = "ms of one picture of 128 px alone, 20 steps, guided"
WARM_UP, PICTURES = 3, 7  # the first calls of a shape are recorded


def _alone(ground: Ground) -> Raw:
    """Painted as the server's engine does, without its queue: each time a caption that it has not read yet."""
    stepper, seeds = _stepper(ground), count()
    sampler = DPMSolverPP2M(num_steps=ground.scale.num_steps)

    def paint() -> float:
        began, seed = time.perf_counter(), next(seeds)
        slot = stepper.slot(Job(f"{seed} boats in a harbour at dawn", seed, sampler, guidance_scale=3.0))
        while not slot.finished:
            stepper.advance([slot], batch_size=slot.rows)
        stepper.picture(slot.x)
        return time.perf_counter() - began

    with stepper.session():
        walls = [paint() for _ in range(WARM_UP + PICTURES)][WARM_UP:]
        return {"walls": walls, "kernels": sum(kernels_of(ground, paint))}


def _stepper(ground: Ground) -> Stepper:
    model = build_module(ground.settings("compile=false")).model.to(ground.device).eval()
    stepper = Stepper(model, precision=autocast_dtype("auto", ground.device))
    if ground.on_gpu and switch.ACCELERATES:
        stepper.network = Captured.of(model.backbone, dtype=stepper.precision)
    return stepper


def _alone_rows(raw: Raw, about: dict[str, Any]) -> Rows:
    wall, kernels = statistics.median(raw["walls"]), raw["kernels"]
    sides = {"ours": 1e3 * wall, "peer": 1e3 * kernels}
    peer_name = "the sum of its kernels' times"
    ratios = [each / kernels for each in raw["walls"]]
    return [compared(ALONE, **sides, peer_name=peer_name, ratios=ratios, at_most=1.3, **about)]


alone = Part("alone", (ALONE,), 10, _alone, _alone_rows)
