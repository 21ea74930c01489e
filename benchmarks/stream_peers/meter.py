"""The stop-watch that all sides share. Standard library only: it runs in every environment."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any


def measure(batches: Iterator[tuple[Any, Any]], *, size_px: int, batch: int, seconds: float, warm_s: float) -> None:
    """Print, as one line of JSON, the rate (samples/s) at which `batches` of (images, captions) come.

    Batches of the first `warm_s` seconds are looked at and not counted: each must be a uint8 tensor of shape
    (batch, 3, size_px, size_px) with a caption for each row, no two batches alike.
    """
    began = now = time.perf_counter()
    seen: set[tuple[str, ...]] = set()
    while now - began < warm_s or len(seen) < 3:
        images, captions = next(batches)
        shape, kind = tuple(images.shape), str(images.dtype)
        if shape != (batch, 3, size_px, size_px) or kind != "torch.uint8" or len(captions) != batch:
            raise SystemExit(f"a batch has shape {shape}, type {kind} and {len(captions)} captions")
        if int(images[0].max()) == int(images[0].min()) or not all(isinstance(text, str) for text in captions):
            raise SystemExit("a batch has a picture of one colour, or a caption that is no text")
        seen.add(tuple(captions))
        now = time.perf_counter()
        if now - began > warm_s + 60 and len(seen) < 3:
            raise SystemExit("the same batch comes again and again")
    started = now
    samples = 0
    while now - started < seconds:
        _, captions = next(batches)
        samples += len(captions)
        now = time.perf_counter()
    report(rate=samples / (now - started), samples=samples, seconds=now - started)


def report(**figures: float) -> None:
    """Hand `figures` to the benchmark: the last line of the output."""
    print(json.dumps(figures), flush=True)
    sys.stdout.flush()
