"""The watch page of many runs: how soon its first page is there, and what its server takes.

    python benchmarks/watch.py [runs=200] [rows=10000] [rounds=5]

Each round starts `python -m diffusion_art.watch` on `runs` run folders: metrics.csv with `rows` rows, config, log and
grids. It asks what a browser does: the page, its scripts and styles, the list of runs, which the server has read once
before it says that it answers. Then it compares eight runs in three metrics, appends a row to one of them, asks again,
and looks at twice as many runs as the server keeps curves of. No browser draws, and the files are in the page cache.
Memory is the server's peak resident set at the end. The figures are medians over the rounds, of memory the greatest.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from record import below, command, figure, machine, write

from diffusion_art.watching.runs import FOLLOWED

COLUMNS = (
    *("epoch", "image_size_px", "images_seen", "time/data_wait_share", "time/images_per_s", "time/run_s"),
    *("train/alignment", "train/grad_norm", "train/loss", "train/lr"),
    *("val/loss", "val/loss_clean", "val/loss_middle", "val/loss_noisy"),
)
KINDS = 8  # of metrics and grids; the other runs have copies
COMPARED = 8
METRICS = ("train/loss", "val/loss", "time/images_per_s")
CONFIG = """\
name: bench
seed: {seed}
optim:
  _target_: torch.optim.AdamW
  lr: {lr}
trainer:
  accelerator: cpu
  max_steps: {rows}
  precision: 32-true
"""
LOG_LINE = "2026-11-28 12:00:00,000 INFO diffusion_art.callbacks.sample_grid: step 0: samples in samples\n"


def make(folder: Path, *, runs: int, rows: int) -> list[str]:
    """So many run folders in sweeps of twenty; their ids."""
    ids = [f"bench/sweep_{number // 20}/{number % 20}" for number in range(runs)]
    for number, id in enumerate(ids):
        run = folder / id
        if number < KINDS:
            (run / "samples").mkdir(parents=True)
            (run / "metrics.csv").write_text(metrics(number, rows), newline="")
            for step in range(0, rows + 1, max(1, rows // 4)):
                grid(number, step).save(run / "samples" / f"step_{step:08d}.png")
        else:
            shutil.copytree(folder / ids[number % KINDS], run)
        (run / "config.yaml").write_text(CONFIG.format(seed=number, lr=1e-3 / (number + 1), rows=rows))
        (run / "train.log").write_text(LOG_LINE * 20)
        (run / "report.md").write_text("# bench\n")
        (run / ".running").write_text("process 1 on bench")
    return ids


def metrics(seed: int, rows: int) -> str:
    """A metrics.csv as the run's logger writes it."""
    rng = random.Random(seed)
    lines = [",".join(("step", *COLUMNS))]
    for step in range(rows):
        loss = 0.4 + math.exp(-step * 8 / rows) + 0.05 * rng.random()
        often = {"epoch": step / 500, "train/grad_norm": rng.random(), "train/loss": loss, "train/lr": 1e-3}
        often |= {"time/run_s": round(step * 0.21, 3), "train/alignment": loss / 3}
        if step % 20 == 19:
            often |= {"time/data_wait_share": 0.01 * rng.random(), "time/images_per_s": 100 + rng.random()}
            often |= {"image_size_px": 64.0, "images_seen": 64.0 * step}
        if step % 200 == 199:
            often |= {name: loss * (1.02 + 0.02 * place) for place, name in enumerate(COLUMNS[-4:])}
        lines.append(",".join((str(step), *(str(often.get(name, "")) for name in COLUMNS))))
    return "\r\n".join(lines) + "\r\n"


def grid(seed: int, step: int) -> Image.Image:
    """Any picture of a sample grid's size."""
    rng = random.Random(f"{seed} {step}")
    return Image.frombytes("RGB", (24, 20), rng.randbytes(24 * 20 * 3)).resize((624, 520), Image.Resampling.NEAREST)


@contextmanager
def watching(folder: Path) -> Iterator[tuple[int, str, float]]:
    """A server of its own: process id, address, and how long it took to start."""
    words = [sys.executable, "-m", "diffusion_art.watch", f"logs={folder}", "port=0"]
    began = time.perf_counter()
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert server.stdout is not None
        line = next(line for line in server.stdout if "http://" in line)
        found = re.search(r"http://\S+?(?=;)", line)
        assert found is not None
        yield server.pid, found[0], time.perf_counter() - began
    finally:
        server.terminate()
        server.wait()


def timed(url: str, *paths: str) -> tuple[float, list[bytes]]:
    """Seconds to get all of them, one after another."""
    began = time.perf_counter()
    got = []
    for path in paths:
        with urllib.request.urlopen(f"{url}/{path}") as answer:
            got.append(answer.read())
    return time.perf_counter() - began, got


def first_page(url: str, runs: int) -> float:
    page_s, (page,) = timed(url, "")
    names = set(re.findall(r'(?:href|src)="(page/[\w.]+)"', page.decode()))
    names |= {f"page/{name}" for name in ("api.js", "chart.js", "compare.js", "dom.js", "http.js", "list.js")}
    parts_s, _ = timed(url, *sorted(names))
    list_s, (told,) = timed(url, "api/runs")
    assert len(json.loads(told)["runs"]) == runs
    return page_s + parts_s + list_s


def peak_mb(pid: int) -> float:
    """The peak resident set, of Linux."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1000


def one_round(folder: Path, ids: list[str]) -> dict[str, float]:
    with watching(folder) as (pid, url, start_s):
        told = {"start": start_s, "page": first_page(url, len(ids))}
        asked = "&".join([f"run={quote(id)}" for id in ids[:COMPARED]] + [f"metric={quote(name)}" for name in METRICS])
        told["compare"], (before,) = timed(url, f"api/curves?{asked}")
        timed(url, *(f"api/grid?run={quote(id)}&step=0&small=true" for id in ids[:40]))
        file = folder / ids[0] / "metrics.csv"
        row = file.read_bytes().splitlines()[-1].split(b",")
        with file.open("ab") as source:
            source.write(b",".join([str(int(row[0]) + 1).encode(), *row[1:]]) + b"\r\n")
        told["again"], (after,) = timed(url, f"api/curves?{asked}")
        assert before != after
        timed(url, *(f"api/curves?run={quote(id)}" for id in ids[: 2 * FOLLOWED]))  # more than are kept
        told["memory"] = peak_mb(pid)
    return told


def main(runs: int = 200, rows: int = 10_000, rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "logs"
        ids = make(folder, runs=runs, rows=rows)
        told = [one_round(folder, ids) for _ in range(rounds)]
    median = {key: statistics.median(one[key] for one in told) for key in told[0]}
    of = f"{runs} runs of {rows:,} rows"
    more = {"rounds": rounds, "command": command("watch", runs=runs, rows=rows, rounds=rounds), **machine()}
    write(
        "watch",
        [
            below(f"first page of {of}, s", median["page"], 1.0, goal="<= 1 s", **more),
            below(
                f"peak memory of the server after {2 * FOLLOWED} of {of} were looked at, MB",
                max(one["memory"] for one in told),
                300.0,
                goal="< 300 MB",
                **more,
            ),
            figure("s until the server answers", median["start"], **more),
            figure(
                f"s to read and send the curves of {COMPARED} runs in {len(METRICS)} metrics", median["compare"], **more
            ),
            figure("s of the same after one of them has a row more", median["again"], **more),
        ],
    )


if __name__ == "__main__":
    main(**{key: int(value) for key, _, value in (word.partition("=") for word in sys.argv[1:])})
