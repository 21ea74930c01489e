"""What the engine costs over the network calls it makes, and when it first shows something."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from diffusion_art.accel.cores import leave_cores
from diffusion_art.checkpoints import load_text_to_image
from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M
from diffusion_art.serving.engine.engine import Engine, Job, autocast_dtype

PICTURES = 8
STEPS = 30

_window: Callable[[], float]  # of the process at hand: seconds of STEPS network calls


def engine_overhead(checkpoint: Path, *, rounds: int) -> tuple[float, float, float]:
    """Ticks per second of the engine, network calls per second alone, and the median ratio of interleaved pairs.

    Eight guided pictures are a batch of 16 rows at each step; the bare side calls the network with as many rows,
    times and captions, and does nothing with the answers. Each side has a process of its own.
    """
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, _begin_engine, (checkpoint,)) as ours,
        ProcessPoolExecutor(1, context, _begin_bare, (checkpoint,)) as bare,
    ):
        pairs = []
        for number in range(rounds + 1):
            sides = [ours, bare] if number % 2 else [bare, ours]
            taken = {side: side.submit(_timed).result() for side in sides}
            pairs.append((STEPS / taken[ours], STEPS / taken[bare]))
    del pairs[0]  # warms up
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def call_ms(checkpoint: Path, pictures: int) -> float:
    """Median milliseconds of one network call for so many guided pictures, alone on the machine."""
    with ProcessPoolExecutor(1, get_context("spawn"), _begin_bare, (checkpoint, pictures)) as bare:
        taken = [bare.submit(_timed).result() for _ in range(4)]
    return 1000 * statistics.median(taken[1:]) / STEPS


def _timed() -> float:
    return _window()


def _begin_engine(checkpoint: Path) -> None:
    global _window
    cores = leave_cores()
    engine = Engine(load_text_to_image(checkpoint), max_rows=2 * PICTURES, cores=cores)
    engine.start()
    sampler = DPMSolverPP2M(num_steps=STEPS)
    jobs = [Job(f"a painting of {place} things", place, sampler, guidance_scale=3.0) for place in range(PICTURES)]

    def window() -> float:
        began = time.perf_counter()
        for ticket in engine.submit(jobs):
            ticket.result.result()
        return time.perf_counter() - began

    _window = window


def _begin_bare(checkpoint: Path, pictures: int = PICTURES) -> None:
    global _window
    model = load_text_to_image(checkpoint)
    precision = autocast_dtype("auto", model.device)
    cond = model.encode_captions([f"a painting of {place} things" for place in range(pictures)] + [""] * pictures)
    x_t, t = torch.randn(2 * pictures, *model.latent_shape), torch.linspace(0, 1, 2 * pictures)

    def window() -> float:
        began = time.perf_counter()
        with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision is not None):
            for _ in range(STEPS):
                model.denoise(x_t, t, cond)
        return time.perf_counter() - began

    _window = window


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

    sampler = DPMSolverPP2M(num_steps=50)
    engine.submit([Job("a painting", seed=0, sampler=sampler, guidance_scale=3.0, previews=3)], on_preview=on_preview)
    shown.wait(60)
    engine.stop(drain_s=0)
    return calls[0]
