"""How long a server takes to its first answer when nothing of it is in the page cache, and when all of it is.

    python benchmarks/serve_start.py [run=logs/quickstart] [rounds=3]

Before a cold start the files of the environment, the code and the run are put out of the cache; the directories stay
in it. Pages that a process maps cannot be put out, so this script loads no torch and lets no other process have it.
`MB read` is what the kernel then fetched for the server.
"""

from __future__ import annotations

import os
import statistics
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psutil
from record import below, command, figure, machine, missing, write
from serve_sides.servers import ours
from stream_sides.running import BENCHMARKS

LIMIT_S = 6.0


def files(run: Path) -> Iterator[Path]:
    """What a server may read."""
    code = [BENCHMARKS.parent / "diffusion_art", BENCHMARKS.parent / "conf"]
    installed = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
    for root in (*code, *installed, run):
        found = root.rglob("*") if root.is_dir() else [root]
        yield from (path for path in found if path.is_file())


def forget(paths: list[Path]) -> None:
    """Put the files out of the page cache."""
    os.sync()  # what is not yet written stays
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check_unmapped() -> None:
    """SystemExit while a process has torch, whose pages then stay in the cache."""
    for process in psutil.process_iter():
        try:
            mapped = any("libtorch" in region.path for region in process.memory_maps())
        except psutil.Error:
            continue  # it has ended, or is another user's
        if mapped:
            raise SystemExit(f"process {process.pid} ({process.name()}) has torch loaded: end it, then try again")


def start(run: Path) -> tuple[float, float]:
    """Seconds from the start of a server to its readiness, and MB read from the disk meanwhile."""
    with ours(run) as server:
        return server.ready_s, psutil.Process(server.pid).io_counters().read_bytes / 1e6


def main(run: str = "logs/quickstart", rounds: int = 3) -> None:
    cold_start = "start to ready, files not in cache, s"
    if not hasattr(os, "posix_fadvise"):
        write("serve_start", [missing(cold_start, "this system has no posix_fadvise to empty its page cache with")])
        return
    paths = list(files(Path(run)))
    cold, warm = [], []
    for _ in range(rounds):
        check_unmapped()
        forget(paths)
        cold.append(start(Path(run)))
        warm.append(start(Path(run)))
        print(f"cold {cold[-1][0]:.2f} s, {cold[-1][1]:.0f} MB read; warm {warm[-1][0]:.2f} s", flush=True)
    here = {"command": command("serve_start", run=run, rounds=rounds), **machine()}
    cold_s, read_mb = (statistics.median(column) for column in zip(*cold))
    rows = [
        below(cold_start, cold_s, LIMIT_S, goal="<= 6 s", **here),
        figure("MB read from the disk on the way", read_mb, **here),
        figure("start to ready, files in cache, s", statistics.median(seconds for seconds, _ in warm), **here),
    ]
    write("serve_start", rows)


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    main(words.get("run", "logs/quickstart"), int(words.get("rounds", 3)))
