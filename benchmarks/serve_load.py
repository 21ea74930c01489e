"""How a server holds out: many clients at a small queue, ten thousand requests, a prompt of a megabyte.

    python benchmarks/serve_load.py [run=logs/quickstart] [clients=200] [seconds=20] [requests=10000]

The clients run in processes of their own, on the same cores. What is no figure (slow and half-open connections, going
clients, failing steps, SIGTERM, kill -9, fuzzing) is tested: tests/serving/test_limits.py, test_serve.py, test_fuzz.py.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import psutil
from record import below, command, figure, machine, none, write
from serve_sides.servers import ours
from stream_sides.running import run

from diffusion_art.checkpoints import find_checkpoint

QUEUE = 32
MEGABYTE = 1_000_000
SETTLED = 0.2  # share of the requests after which memory has to be flat
PARTS = 8


def side(arguments: dict[str, Any]) -> dict:
    return run(sys.executable, "serve_sides.storm", arguments, limit_s=900)


def besieged(url: str, *, clients: int, seconds: float) -> tuple[dict, dict]:
    """What the clients were answered, and how long /health took meanwhile."""
    with ThreadPoolExecutor() as pool:
        storming = pool.submit(side, {"url": url, "clients": clients, "seconds": seconds})
        time.sleep(2)  # until they have all connected
        probing = pool.submit(side, {"url": url, "health_s": seconds - 3})
        return storming.result(), probing.result()


def memory_mb(process: psutil.Process, url: str, *, requests: int) -> list[float]:
    """Resident memory after each of PARTS equal parts of so many requests."""
    sizes = []
    for _ in range(PARTS):
        done = side({"url": url, "clients": 16, "requests": requests // PARTS, "steps": 1})
        assert done.keys() <= {"200", "lost"}, done
        sizes.append(process.memory_info().rss / 2**20)
        print(f"after {len(sizes) * (requests // PARTS)} requests: {sizes[-1]:.1f} MB, {done}", flush=True)
    return sizes


def refused_ms(url: str, *, times: int = 30) -> float:
    """Median milliseconds until a prompt of a megabyte is refused."""
    taken = []
    with httpx.Client(trust_env=False, timeout=30) as client:
        for _ in range(times):
            began = time.perf_counter()
            answer = client.post(f"{url}/v1/images/generations", json={"prompt": "x" * MEGABYTE})
            taken.append(1000 * (time.perf_counter() - began))
            assert answer.status_code == 413
    return statistics.median(taken)


def main(run: str = "logs/quickstart", clients: int = 200, seconds: float = 20.0, requests: int = 10_000) -> None:
    checkpoint = find_checkpoint(run)
    given = {"run": run, "clients": clients, "seconds": seconds, "requests": requests}
    here, rows = {"command": command("serve_load", **given), **machine()}, []
    with ours(checkpoint, f"engine.max_jobs={QUEUE}") as server:
        answers, pulse = besieged(server.url, clients=clients, seconds=seconds)
        others = sum(number for status, number in answers.items() if status not in ("200", "429"))
        print(f"{answers}; health {pulse}")
        rows += [
            below(
                f"/health p99, ms, under {clients} clients at a queue of {QUEUE}",
                pulse["p99"],
                50,
                goal="< 50 ms",
                **here,
            ),
            figure(f"/health median, ms, meanwhile ({pulse['asked']} times)", pulse["p50"], **here),
            figure("of these clients' requests: answered 200", answers["200"], **here),
            figure("of these clients' requests: answered 429", answers.get("429", 0), **here),
            none("of these clients' requests: answered otherwise, or lost", others, **here),
        ]
        milliseconds = refused_ms(server.url)
        rows.append(below("a prompt of 1 MB is refused, ms", milliseconds, 50, goal="< 50 ms", **here))
    with ours(checkpoint) as server:
        sizes = memory_mb(psutil.Process(server.pid), server.url, requests=requests)
        settled = sizes[round(SETTLED * PARTS) :]
        at = (np.arange(len(sizes)) + 1)[-len(settled) :] * (requests / PARTS / 1000)
        slope = float(np.polyfit(at, settled, 1)[0])
        rows += [
            figure(f"resident memory after {requests:,} requests, no two alike, MB", sizes[-1], **here),
            below(
                "its growth over the last four fifths of them, MB per 1,000 requests", slope, 1, goal="< 1 MB", **here
            ),
        ]
    write("serve_load", rows)


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    numbers = {"clients": int, "seconds": float, "requests": int}
    main(**{name: numbers.get(name, str)(value) for name, value in words.items()})
