"""What a second process brings, and what sharing out saves.

    python benchmarks/scale_ddp.py [rounds=5] [steps=60] [per_process=16,64]

Pictures per second of one process of one thread, of two (gloo, one thread each), and of two runs of one process each at
the same time, which share nothing but the machine: no two processes that talk can be faster. One after the other in
each round, in an order that turns. The ratio is the median over the rounds of the ratio within a round; a rate is the
median of the windows of a run, the first one aside. All that for each number of pictures a process: a batch of 32, the
quickstart's, is 16 each, and one of 128, WikiArt's, is 64. Then the bytes of weights, optimiser and averages that a
process holds under `trainer=fsdp`, as a share of those that each holds under `trainer=ddp`, which are all. Each run
is the real command on the painter's pictures. Two processes need two idle cores: rows tell the load of the machine
before the first run.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from record import RESULTS, claim, command, figure, machine, write

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


def images_per_s(folder: Path, *, processes: int, per_process: int, steps: int, turn: int, name: str = "") -> float:
    """The median over the windows of a run, without its first one."""
    run = f"p{processes}_{per_process}_{turn}{name}"
    many = [f"trainer.devices={processes}", *(["trainer=ddp"] if processes > 1 else [])]
    size = [f"data.global_batch_size={per_process * processes}", f"trainer.max_steps={steps}"]
    run_command("train", *SETTINGS, *many, *size, f"run={run}", cwd=folder)
    speeds = pd.read_csv(folder / "logs/quickstart32" / run / "metrics.csv")["time/images_per_s"].dropna()
    return float(speeds[1:].median())


def apart(folder: Path, **of_a_run: int) -> float:
    """Of two runs of one process each at the same time, together."""
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(images_per_s, folder, processes=1, name=name, **of_a_run) for name in ("a", "b")]
        return sum(run.result() for run in runs)


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


SIDES = ("one", "two", "apart")


def rounds_of(folder: Path, *, rounds: int, steps: int, per_process: int) -> dict[str, list[float]]:
    """Pictures/s of each side; each round has all, in an order that turns."""
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(rounds):
        for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
            about = {"per_process": per_process, "steps": steps, "turn": turn}
            if side == "apart":
                speeds[side].append(apart(folder, **about))
            else:
                speeds[side].append(images_per_s(folder, processes=SIDES.index(side) + 1, **about))
    return speeds


def claims(speeds: dict[str, list[float]], *, per_process: int) -> list[dict[str, Any]]:
    one, two, apart = (speeds[side] for side in SIDES)
    ratios = [both / (2 * alone) for alone, both in zip(one, two, strict=True)]
    ratio, each = statistics.median(ratios), f"{per_process} pictures each"
    speed = claim(
        f"training pictures/s of two gloo processes of one thread, {each}",
        ours=statistics.median(two),
        peer=2 * statistics.median(one),
        peer_name="twice one process of one thread",
        ratio=ratio,
        goal=">= 0.95",
        holds=ratio >= 0.95,
        ratios=[round(each, 3) for each in ratios],
    )
    at_most = statistics.median(both / (2 * alone) for alone, both in zip(one, apart, strict=True))
    return [speed, figure(f"the same share for two runs at the same time, which share nothing, {each}", at_most)]


def memory(share: float) -> dict[str, Any]:
    return claim(
        "bytes of weights, optimiser and average that one of two processes holds, trainer=fsdp",
        ours=share,
        peer=1.0,
        peer_name="trainer=ddp",
        ratio=share,
        goal="<= 0.55",
        holds=share <= 0.55,
    )


def main(rounds: str = "5", steps: str = "60", per_process: str = "16,64", results: str = str(RESULTS)) -> None:
    line = command("scale_ddp", rounds=rounds, steps=steps, per_process=per_process)
    more = {**machine(), "command": line, "load_before": round(os.getloadavg()[0], 2)}
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run_command("prepare", "source=painter", "source.count=400", "image_size_px=32", "out=S", cwd=folder)
        for each in map(int, per_process.split(",")):
            speeds = rounds_of(folder, rounds=int(rounds), steps=int(steps), per_process=each)
            rows += claims(speeds, per_process=each)
        rows.append(memory(held_share(folder)))
    write("scale_ddp", [{**row, **more} for row in rows], results=Path(results))


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
