"""One step of training, ours and diffusers', on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler
from overhead import Bare
from quality_sides.training import counter
from torch import nn
from torch.nn.functional import mse_loss, pixel_unshuffle
from training import Theirs

from diffusion_art.tensors import Batch
from gpu_sides.ground import Ground
from gpu_sides.turns import Side

ADAMW = ("optim=adamw", "optim.lr=2e-4")  # `wikiart` until it trained by Muon
PLAIN = (*ADAMW, "alignment=none")


def our_side(ground: Ground, *overrides: str, fast: bool = True, **how: str) -> Side:
    """The step of `wikiart` with these overrides, in as many parts as its config says."""
    settings = ground.settings(*overrides, **how)
    parts = settings["trainer"]["accumulate_grad_batches"]
    return Side(Bare(settings, [], device=ground.device).step, ground.steps_of(parts=parts), fast)


def before_side(ground: Ground) -> Side:
    """As `wikiart` was shipped before, by today's code: AdamW, in four parts, neither compiled nor accelerated."""
    parts = ground.scale.parts_before
    cut = (f"data.global_batch_size={ground.scale.batch // parts}", f"trainer.accumulate_grad_batches={parts}")
    return our_side(ground, *PLAIN, *cut, "find_batch_size=false", "compile=false", fast=False)


def diffusers_side(ground: Ground, *, compiled: bool) -> Side:
    """The loop of diffusers' training examples in bf16 autocast; compiled, its network is one graph, channels last."""
    settings = ground.settings(*PLAIN, "compile=false")
    return Side(diffusers_step(ground, settings, compiled=compiled), ground.steps_of(), fast=False)


def diffusers_step(ground: Ground, settings: dict[str, Any], *, compiled: bool) -> Callable[[Batch], None]:
    model = Theirs(settings).train().to(ground.device)
    if compiled:
        model.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled and ground.scale.compiles:
        model.net.compile()
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(batch: Batch) -> None:
        x_0 = pixel_unshuffle(batch.images, 2)
        noise = torch.randn_like(x_0)
        clock = torch.randint(0, 1000, (len(x_0),), device=ground.device)
        with torch.autocast(ground.device.type, torch.bfloat16):
            model.cond = model.text_encoder.encode(batch.captions)
            answer = model(scheduler.add_noise(x_0, noise, clock), clock)
        mse_loss(answer.float(), noise).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def flops_of(ground: Ground, *overrides: str) -> float:
    """Of one whole step, counted while it runs uncompiled."""
    side = our_side(ground, *overrides, "compile=false", fast=False)
    with counter() as counted:
        side.seconds(ground, 1)
    return float(counted.get_total_flops())
