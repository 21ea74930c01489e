"""What each acceleration for a CPU brings to a training step: with it, and with its plain twin (docs/accelerations.md).

    python benchmarks/accel.py [experiment=quickstart] [rounds=8] [steps=3] [only=attention,upsample]

Two modules of the same config train in one process on pictures in memory, `steps` steps of each in turns; the second
computes by the plain twin of one acceleration and is else the same. The first round warms up and is left out. An
acceleration earns its place with 5 % of the time. Those of a GPU are rows of `gpu.py`, keeping memory is one of
`memory.py`, the compiled network one of `serve.py`.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from hydra import compose, initialize_config_dir
from overhead import Bare
from record import claim, command, machine, write

from diffusion_art.accel.memory import keep_memory
from diffusion_art.config import config_dir
from diffusion_art.launching.fit import quieten
from diffusion_art.launching.settle import settle
from diffusion_art.tensors import Batch

PARTS = {
    "upsample": "upsampling by a transposed convolution",
    "attention": "attention by the formula where positions are few",
    "projections": "projections of the same tokens by one product",
    "text_attention": "attention between a caption's tokens by the formula",
    "resize": "resizing by products of matrices",
    "frozen_convolutions": "the image tower's norms folded, its pictures padded alike",
    "muon_stacks": "Muon's matrices in stacks, wide ones by their Gram matrices",
}
GOAL = 1.05


@contextmanager
def plain(part: str | None) -> Iterator[None]:
    """Inside the block the acceleration of that name is off, and all others are as they are."""
    if part is None:
        yield
        return
    module = import_module(f"diffusion_art.accel.{part}")
    with mock.patch.object(module, "switch", SimpleNamespace(ON=False, ACCELERATES=False)):
        yield


def settings_of(experiment: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        asked = [f"+experiment={experiment}", "alignment.stop_at_fraction=1.0"]  # it is on in each step
        return settle(compose("train", overrides=asked), Path("unused"))


def batches_of(settings: dict, *, steps: int) -> list[Batch]:
    count, side = settings["data"]["global_batch_size"], settings["data"]["image_size_px"]
    words = ["Piet Mondrian", "Composition in Red and Blue", "De Stijl", "abstract", "1921"]
    captions = [" / ".join(words[: 1 + n % len(words)]) for n in range(count)]
    return [
        Batch(
            images=torch.rand(count, 3, side, side) * 2 - 1,
            captions=captions,
            keys=[""] * count,
            positions=list(range(step * count, (step + 1) * count)),
            cursor=step + 1,
        )
        for step in range(steps)
    ]


def main(experiment: str = "quickstart", rounds: int = 8, steps: int = 3, only: str = "") -> None:
    quieten()
    keep_memory()
    settings = settings_of(experiment)
    batches = batches_of(settings, steps=steps)
    rows = []
    for part, what in PARTS.items():
        if only and part not in only.split(","):
            continue
        sides = {"fast": None, "plain": part}
        taken: dict[str, list[float]] = {side: [] for side in sides}
        bares = {}
        for side, off in sides.items():
            with plain(off):
                bares[side] = Bare(settings, batches)
        for turn in range(rounds + 1):
            for side in sorted(sides, reverse=bool(turn % 2)):
                with plain(sides[side]):
                    taken[side].append(bares[side]() / steps)
        pairs = list(zip(taken["fast"][1:], taken["plain"][1:], strict=True))
        ratios = [slow / fast for fast, slow in pairs]
        ratio = statistics.median(ratios)
        rows.append(
            claim(
                f"ms a step of {experiment}: {what}",
                ours=1000 * statistics.median(fast for fast, _ in pairs),
                peer=1000 * statistics.median(slow for _, slow in pairs),
                peer_name="its plain twin",
                ratio=ratio,
                ratios=[round(each, 3) for each in ratios],
                goal=f">= {GOAL}",
                holds=ratio >= GOAL,
                command=command("accel", experiment=experiment, rounds=rounds, steps=steps),
                **machine(),
            )
        )
    if not only:
        write("accel", rows)


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    main(**{name: int(value) if name in ("rounds", "steps") else value for name, value in given.items()})
