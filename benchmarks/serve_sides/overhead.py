"""What the engine costs over the network calls it makes, and when it first shows something."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

import numpy as np
import torch

from diffusion_art.checkpoints import load_text_to_image
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.serving.engine import Engine, Job

PICTURES = 8
STEPS = 30


def engine_overhead(checkpoint: Path, *, rounds: int) -> tuple[float, float, float]:
    """Ticks per second of the engine, network calls per second alone, and the median ratio of interleaved pairs.

    Eight guided pictures are a batch of 16 rows at each step; the bare side calls the network with as many rows,
    times and captions, and does nothing with the answers.
    """
    model = load_text_to_image(checkpoint)
    engine = Engine(model, max_rows=2 * PICTURES)
    engine.start()
    captions = [f"a painting of {place} things" for place in range(PICTURES)]
    cond = model.encode_captions([*captions, *[""] * PICTURES])
    x_t = torch.randn(2 * PICTURES, *model.latent_shape)
    t = torch.linspace(0, 1, 2 * PICTURES)

    def ours() -> float:
        sampler = Sampler("dpmpp_2m", num_steps=STEPS)
        began = time.perf_counter()
        tickets = engine.submit([Job(c, seed=n, sampler=sampler, guidance_scale=3.0) for n, c in enumerate(captions)])
        for ticket in tickets:
            ticket.result.result()
        return STEPS / (time.perf_counter() - began)

    @torch.no_grad()
    def bare() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=engine.precision is not None):
                model.denoise(x_t, t, cond)
        return STEPS / (time.perf_counter() - began)

    ours(), bare()
    pairs = [(ours(), bare()) if number % 2 else (bare(), ours())[::-1] for number in range(rounds)]
    engine.stop()
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def first_preview(checkpoint: Path) -> int:
    """Network calls made when the first preview of a 50-step picture is shown."""
    engine = Engine(load_text_to_image(checkpoint))
    engine.start()
    shown = threading.Event()
    calls = []

    def on_preview(index: int, number: int, picture: np.ndarray) -> None:
        if not calls:
            calls.append(engine.stats().ticks)
        shown.set()

    sampler = Sampler("dpmpp_2m", num_steps=50)
    engine.submit([Job("a painting", seed=0, sampler=sampler, guidance_scale=3.0, previews=3)], on_preview=on_preview)
    shown.wait(60)
    engine.stop(drain_s=0)
    return calls[0]
