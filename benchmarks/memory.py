"""What it brings that the commands keep freed memory for the next tensors (`diffusion_art/accel/memory.py`).

    python benchmarks/memory.py [pairs=8] [steps=8]

Two processes do the same and take turns, a window of `steps` each: one keeps its memory, the other gives it back as
glibc does by default. The work is a training step of the quickstart, without its alignment, at 32 and at 64 px, and
network calls of 50 to 64 rows in a thread of its own, as the serving engine makes them. Told are the median ratio of
pictures per second over pairs of windows, the page faults of a step, and the most memory that either process held.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from overhead import Bare
from record import claim, command, figure, machine, write
from training import BATCH, batches, settings_of

from diffusion_art.accel.cores import leave_cores
from diffusion_art.accel.memory import keep_memory
from diffusion_art.devices import computes_in_bf16
from diffusion_art.launching.fit import quieten
from diffusion_art.training.build import build_module

ROWS = (64, 58, 62, 50, 60, 56, 64, 54)  # of one call after the other
WORK = {
    "training images/s, quickstart, 32 px": ("training", 32),
    "training images/s, quickstart, 64 px": ("training", 64),
    "pictures/s through the network of the quickstart, 50 to 64 rows": ("serving", 32),
}


class Window(NamedTuple):
    seconds: float
    faults: int
    peak_mb: float  # of the process, so far


_step: Callable[[], None]  # of the process at hand


def _begin(work: str, image_size_px: int, keep: bool) -> None:
    global _step
    quieten()
    if keep and not keep_memory():
        raise SystemExit("memory is kept under glibc, without thresholds in the environment: nothing to compare here")
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(Path(folder), f"data.image_size_px={image_size_px}", "alignment=none")
        if work == "training":
            (batch,) = batches(image_size_px, 1)
            loop = Bare(settings, [batch])
            _step = lambda: loop.step(batch)  # noqa: E731
        else:
            model = build_module(settings).model.eval()
            most = max(ROWS)
            cond = model.encode_captions(batches(image_size_px, 1)[0].captions + [""] * (most - BATCH))
            x_t, t, next_rows = torch.randn(most, *model.latent_shape), torch.linspace(0, 1, most), cycle(ROWS)
            in_bf16 = computes_in_bf16(model.device)

            @torch.no_grad()
            def call() -> None:
                rows = slice(next(next_rows))
                with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
                    model.denoise(x_t[rows], t[rows], cond[rows])

            thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(leave_cores(),))
            _step = lambda: thread.submit(call).result()  # noqa: E731


def _window(steps: int) -> Window:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    for _ in range(steps):
        _step()
    seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return Window(seconds, used.ru_minflt - before, used.ru_maxrss / 1024)


def compare(work: tuple[str, int], *, pairs: int, steps: int) -> list[tuple[Window, Window]]:
    """Windows that kept and that did not, pair by pair; the first pair, which warms up, is left out."""
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, _begin, (*work, True)) as keeping,
        ProcessPoolExecutor(1, context, _begin, (*work, False)) as giving,
    ):
        found = []
        for number in range(pairs + 1):
            sides = [keeping, giving] if number % 2 else [giving, keeping]
            windows = {side: side.submit(_window, steps).result() for side in sides}
            found.append((windows[keeping], windows[giving]))
    return found[1:]


def main(pairs: int = 8, steps: int = 8) -> None:
    about = {"command": command("memory", pairs=pairs, steps=steps), **machine()}
    rows = []
    for name, work in WORK.items():
        found = compare(work, pairs=pairs, steps=steps)
        pictures = steps * (BATCH if work[0] == "training" else statistics.mean(ROWS))
        ratios = [giving.seconds / keeping.seconds for keeping, giving in found]
        ratio = statistics.median(ratios)
        rows.append(
            claim(
                name,
                ours=statistics.median(pictures / keeping.seconds for keeping, _ in found),
                peer=statistics.median(pictures / giving.seconds for _, giving in found),
                peer_name="memory given back",
                ratio=ratio,
                ratios=ratios,
                goal="> 1",
                holds=ratio > 1,
                **about,
            )
        )
        for side, windows in zip(("kept", "given back"), zip(*found)):
            faults = statistics.median(window.faults for window in windows) / steps
            rows.append(figure(f"page faults of a step, memory {side}: {name}", faults, **about))
            rows.append(figure(f"peak MB of the process, memory {side}: {name}", windows[-1].peak_mb, **about))
    write("memory", rows)


if __name__ == "__main__":
    main(**{name: int(value) for name, _, value in (word.partition("=") for word in sys.argv[1:])})
