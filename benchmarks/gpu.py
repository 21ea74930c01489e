"""The main job, `wikiart` at 128 px on one GPU: speed, memory, compiling, serving, each beside its peer or ceiling.

    python benchmarks/gpu.py                                 # all but the last two, at most 8 minutes
    python benchmarks/gpu.py parts=shipped,eager             # some parts
    python benchmarks/gpu.py parts=painter128                # minutes more: until captions are followed
    python benchmarks/gpu.py parts=baseline128               # an hour more: the tutorial's recipe until it is there
    python benchmarks/gpu.py smoke=true device=cpu results=build/gpu/results   # every part on tiny shapes

Sides take turns in one process: three steps each to warm up, then at most five turns of eight steps, in an order that
changes; a ratio is the median of the turns. The ceilings, a bf16 matrix product of side 8192 and a copy within the
device's memory, are measured in the same start, the product between all turns. Pictures are noise in memory, captions
the painter's, the text tower is the small trained one, but for the row about CLIP's, whose weights are random.

Raw numbers lie in logs/gpu/PART.json. Another start with the same code, device and torch takes them from there
(`again=true` does not) and goes on with what is missing; so does one whose `minutes` were over. Lines that are not
measured keep the figures of an earlier commit, if there are any. Without a GPU they all read "not measured".
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_sides import compiling, kernels, painter, serving, training_parts
from gpu_sides.ground import FULL, SMOKE, Ground, Scale
from gpu_sides.part import NotMeasured, Part, Raw, keep, kept
from record import RESULTS, command, machine, write

from diffusion_art.launching.fit import quieten

DEFAULT = (
    training_parts.ceilings,
    compiling.compiling,  # first, so that the others find what it compiled
    training_parts.shipped,
    training_parts.share,
    training_parts.eager,
    training_parts.memory,
    kernels.norm,
    kernels.launches,
    kernels.alone,
    serving.serving,
    training_parts.costs,
    training_parts.compiled,
)
LONG = (painter.painter128, painter.baseline128)
PARTS = {part.name: part for part in (*DEFAULT, *LONG)}
MINUTES = 8.0

Row = dict[str, Any]


def measured(part: Part, ground: Ground, *, again: bool) -> Raw:
    """Raw numbers of a part, kept or fresh. A part that fails says why, and the others go on."""
    found = None if again else kept(part, ground)
    if found is not None:
        print(f"{part.name}: kept from an earlier start", flush=True)
        return found
    print(f"{part.name}: about {part.takes_s:.0f} s", flush=True)
    began = time.perf_counter()
    ground.clear()
    try:
        raw = part.measure(ground)
    except NotMeasured:
        raise
    except Exception as error:
        traceback.print_exc()
        raise NotMeasured(f"it failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}") from error
    print(f"{part.name}: {time.perf_counter() - began:.0f} s", flush=True)
    keep(part, ground, raw)
    return raw


def rows_of(ground: Ground, asked: list[Part], about: dict[str, Any], *, minutes: float, again: bool) -> list[Row]:
    """Of every part: those asked for, as long as there is time, and of the others what an earlier start kept."""
    until = time.perf_counter() + 60 * minutes
    rows: list[Row] = []
    for part in PARTS.values():
        late = part not in LONG and time.perf_counter() + part.takes_s > until
        raw = kept(part, ground)
        if part not in asked and raw is None:
            rows += part.missing(f"not asked for: python benchmarks/gpu.py parts={part.name}", about)
        elif late and (raw is None or again):
            rows += part.missing(f"{minutes:g} minutes were over; the same command goes on with it", about)
        else:
            try:
                rows += part.rows(measured(part, ground, again=again and part in asked), about)
            except NotMeasured as error:
                rows += part.missing(str(error), about)
    return rows


def with_earlier(rows: list[Row], file: Path) -> list[Row]:
    """A line that is not measured now keeps the figures it had."""
    old = {row["measure"]: row for row in (json.loads(file.read_text()) if file.exists() else [])}
    return [old[row["measure"]] if "reason" in row and "ours" in old.get(row["measure"], {}) else row for row in rows]


def settled_device(asked: str) -> torch.device | None:
    """None where there is no GPU."""
    if asked == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else None
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"device={asked}, and torch {torch.__version__} finds no CUDA device here")
    return torch.device(asked)


def settled_scale(options: dict[str, str], device: torch.device | None, results: Path) -> Scale:
    smoke = options.pop("smoke", "false") == "true"
    if not smoke and device is not None and device.type != "cuda":
        raise SystemExit(f"device={device} is measured by smoke=true only, on shapes whose figures mean nothing")
    if smoke and results == RESULTS:
        raise SystemExit("smoke=true writes figures that mean nothing: give a folder for them, results=...")
    scale = SMOKE if smoke else FULL
    return replace(scale, compiles=options.pop("compile") == "true") if "compile" in options else scale


def settled_parts(words: str | None) -> list[Part]:
    names = [name for name in (words or "").split(",") if name] or [part.name for part in DEFAULT]
    if unknown := set(names) - PARTS.keys():
        raise SystemExit(f"parts={','.join(sorted(unknown))} is not known: there are {', '.join(PARTS)}")
    return [PARTS[name] for name in names]


def main(options: dict[str, str]) -> None:
    given = command("gpu", **options)
    asked, minutes = settled_parts(options.pop("parts", None)), float(options.pop("minutes", MINUTES))
    results = Path(options.pop("results", RESULTS))
    device, again = settled_device(options.pop("device", "auto")), options.pop("again", "false") == "true"
    folder = Path(options.pop("folder", "logs/gpu")).resolve()
    scale = settled_scale(options, device, results)
    if options:
        raise SystemExit(f"unknown: {' '.join(options)}")
    about = {"command": given, **machine()}
    if device is None:
        reason = f"torch {torch.__version__} finds no CUDA device"
        rows = [row for part in PARTS.values() for row in part.missing(reason, about)]
    else:
        quieten()
        torch.set_float32_matmul_precision("high")
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["DIFFUSION_ART_CACHE"] = str(folder / "cache")  # what part `compiling` compiled
        os.environ["TRITON_CACHE_DIR"] = str(folder / "cache" / "triton")
        ground = Ground(device, scale, folder)
        rows = rows_of(ground, asked, {**about, **ground.about()}, minutes=minutes, again=again)
    print(f"written to {write('gpu', with_earlier(rows, results / 'gpu.json'), results=results)}")


if __name__ == "__main__":
    main({name: value for name, _, value in (word.partition("=") for word in sys.argv[1:])})
