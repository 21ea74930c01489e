"""What a second process brings, and what sharing out saves.

    python benchmarks/scale_ddp.py

Pictures per second of one process of one thread and of two (gloo, one thread each), whose runs take turns; and the
bytes of weights, optimiser and averages that a process holds under `trainer=fsdp`, as a share of those that each holds
under `trainer=ddp`, which are all. Each run is the real command on the painter's pictures. The result is
`benchmarks/results/scale_ddp.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd

from diffusion_art.shared_checkpoint import described

ROOT = Path(__file__).parents[1]
SETTINGS = [
    *("+experiment=quickstart32", "data.path=S", "data.source=null", "data.url=shards", "data.num_workers=0"),
    *("callbacks.samples=null", "callbacks.progress=null", "callbacks.loss_plot=null", "callbacks.report=null"),
    *("callbacks.caption_following=null", "callbacks.throughput.every_n_steps=10", "trainer.val_check_interval=0"),
    *("callbacks.checkpoints.every_n_steps=0", "trainer.accelerator=cpu", "trainer.precision=32-true", "optim=adamw"),
    *("alignment=none", "prompts=[red]"),
]


def run_command(name: str, *words: str, cwd: Path) -> None:
    pinned = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **pinned, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"diffusion_art.{name}", *words]
    subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.DEVNULL)


def images_per_s(folder: Path, *, processes: int, per_process: int, steps: int, turn: int) -> float:
    """The median over the windows of a run, without its first one."""
    run = f"p{processes}_{turn}"
    many = [f"trainer.devices={processes}", *(["trainer=ddp"] if processes > 1 else [])]
    size = [f"data.global_batch_size={per_process * processes}", f"trainer.max_steps={steps}"]
    run_command("train", *SETTINGS, *many, *size, f"run={run}", cwd=folder)
    speeds = pd.read_csv(folder / "logs/quickstart32" / run / "metrics.csv")["time/images_per_s"].dropna()
    return float(speeds[1:].median())


def held_share(folder: Path) -> float:
    """The largest share of weights, optimiser and average that one of two processes holds under `trainer=fsdp`."""
    two = ["trainer=fsdp", "trainer.devices=2", "data.global_batch_size=8", "trainer.max_steps=2"]
    run_command("train", *SETTINGS, *two, "run=shared", cwd=folder)
    about = described((folder / "logs/quickstart32/shared/checkpoints/last.ckpt").resolve())
    held: Counter[str] = Counter()
    for place, where in about.storage_data.items():
        tensor = about.state_dict_metadata[place.fqn]
        (sizes,) = [chunk.sizes for chunk in tensor.chunks if chunk.offsets == place.offset]
        held[where.relative_path] += math.prod(sizes) * tensor.properties.dtype.itemsize
    return max(held.values()) / sum(held.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--per-process", type=int, default=16)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run_command("prepare", "source=painter", "source.count=400", "image_size_px=32", "out=S", cwd=folder)
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for turn in range(asked.turns):
            for processes, found in speeds.items():
                found.append(
                    images_per_s(
                        folder, processes=processes, per_process=asked.per_process, steps=asked.steps, turn=turn
                    )
                )
        share = held_share(folder)
    one, two = (statistics.median(found) for found in speeds.values())
    load = os.getloadavg()[0]
    result = {
        "images_per_s": speeds,
        "two_against_twice_one": two / (2 * one),
        "fsdp_rank_against_ddp_rank": share,
        "load": load,
        "cores": os.cpu_count(),
    }
    out = ROOT / "benchmarks/results/scale_ddp.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
