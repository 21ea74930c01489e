"""How fast a trained model is served: our engine, a general batching server, a pipeline per request, EIR's way.

    python benchmarks/serve.py [run=logs/quickstart] [rounds=5] [seconds=15] [peers=true]

All sides serve the same checkpoint on the same cores, with the same sampler (DPM-Solver++ 2M), guidance and precision
(bfloat16 autocast), PNGs in base64, and the same clients. Requests ask for 4, 8, 15 or 50 steps at random. Each
round starts every side afresh, in an order that turns; a ratio is the median of those within the rounds. At
80 % load means: requests arrive at random at 0.8 of the rate at which LitServe was saturated in that round, at both.
EIR's way is DDIM of 200 steps, eta 0.2, float32, one at a time.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from record import claim, figure, machine, missing, write
from serve_sides.overhead import engine_overhead, first_preview
from stream_peers.environments import python_of
from stream_sides.running import BENCHMARKS, SideError, run

from diffusion_art.checkpoints import find_checkpoint
from diffusion_art.serving.encode import encode
from diffusion_art.sources.base import Picture
from diffusion_art.sources.painter import Painter

BUILD = BENCHMARKS.parent / "build" / "serve"
STEPS = [4, 8, 15, 50]
CLIENTS = 32
OURS, LIT, PIPELINE, EIR = "ours", "LitServe, max_batch_size 16", "FastAPI, a pipeline per request", "EIR's way"


@contextlib.contextmanager
def served(command: list[str], *, ready: str, port: int) -> Iterator[tuple[str, float]]:
    """The address of a server, and the seconds it took to answer at `ready`."""
    began = time.perf_counter()
    root = BENCHMARKS.parent
    environment = {**os.environ, "PYTHONPATH": f"{BENCHMARKS}{os.pathsep}{root}", "HF_HUB_OFFLINE": "1"}
    log = (BUILD / f"{port}.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=root)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}{ready}", timeout=1, trust_env=False).status_code == 200:
                    break
            if process.poll() is not None or time.perf_counter() - began > 120:
                raise SideError(f"{command[1:3]} did not start; see {log.name}")
            time.sleep(0.02)
        yield url, time.perf_counter() - began
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        log.close()


class Sides:
    """The servers by name, each started when used."""

    def __init__(self, checkpoint: Path, lit_python: Path | None) -> None:
        self.checkpoint = str(checkpoint.resolve())
        self.lit_python = lit_python

    def start(self, name: str) -> contextlib.AbstractContextManager[tuple[str, float]]:
        port = _free_port()
        given: dict[str, Any] = {"run": self.checkpoint, "port": port}
        if name == OURS:
            command = [
                sys.executable,
                "-m",
                "diffusion_art.serve",
                f"run={self.checkpoint}",
                f"port={port}",
                "limits.rate_per_minute=null",
            ]
            return served(command, ready="/ready", port=port)
        if name == LIT:
            command = [str(self.lit_python), "-m", "serve_sides.lit_server", json.dumps(given)]
        else:
            given["way"] = "eir" if name == EIR else "pipeline"
            command = [sys.executable, "-m", "serve_sides.plain_server", json.dumps(given)]
        return served(command, ready="/health", port=port)


def load(url: str, **arguments: Any) -> dict:
    return run(sys.executable, "serve_sides.load", {"url": url, "steps": STEPS, **arguments}, limit_s=600)


def measure(sides: Sides, names: list[str], *, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """By side: rates when saturated, 95th percentiles of 4-step requests at load, seconds until ready."""
    found: dict[str, dict[str, list[float]]] = {name: {"rate": [], "p95": [], "ready": []} for name in names}
    for number in range(rounds):
        turn = number % len(names)
        saturated = {}
        for name in names[turn:] + names[:turn]:
            with sides.start(name) as (url, ready_s):
                found[name]["ready"].append(ready_s)
                clients = CLIENTS if name != EIR else 2
                saturated[name] = load(url, clients=clients, seconds=seconds)["rate"]
                found[name]["rate"].append(saturated[name])
            print(f"round {number + 1}, {name}: {saturated[name]:.2f} requests/s, ready in {ready_s:.1f} s", flush=True)
        for name in (OURS, LIT) if LIT in names else ():
            with sides.start(name) as (url, _):
                times = load(url, rate=0.8 * saturated[LIT], seconds=2 * seconds)
                found[name]["p95"].append(float(np.percentile(times["4"], 95)))
                print(f"round {number + 1}, {name}: p95 of 4 steps {found[name]['p95'][-1]:.2f} s", flush=True)
    return found


def compared(
    found: dict, ours: str, theirs: str, measure: str, key: str, *, at_least: float, invert: bool = False, **more: Any
) -> dict[str, Any]:
    """A claim of ours against theirs; `invert` where smaller is better."""
    pairs = list(zip(found[ours][key], found[theirs][key], strict=True))
    ratios = [b / a if invert else a / b for a, b in pairs]
    ratio = statistics.median(ratios)
    return claim(
        measure,
        ours=statistics.median(a for a, _ in pairs),
        peer=statistics.median(b for _, b in pairs),
        peer_name=theirs,
        ratio=ratio,
        goal=f">= {at_least:g}",
        holds=ratio >= at_least,
        ratios=[round(r, 3) for r in ratios],
        **more,
    )


def answer_bytes() -> tuple[int, int]:
    """A painting of 128 px as our PNG, and as base64 of its float32 pixels."""
    painter = Painter(count=8, image_size_px=128)
    every = (item for chunk in painter.chunks() for item in painter.pictures(chunk))
    pictures = [item.image for item in every if isinstance(item, Picture) and isinstance(item.image, np.ndarray)]
    sizes = [len(encode(picture, format="png")) for picture in pictures]
    return round(statistics.mean(sizes)), len(base64.b64encode(pictures[0].astype(np.float32).tobytes()))


def main(run: str = "logs/quickstart", rounds: int = 5, seconds: float = 15.0, peers: str = "true") -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    checkpoint = find_checkpoint(run)
    command = f"python benchmarks/serve.py rounds={rounds} seconds={seconds:g}"
    here = {"command": command, **machine()}
    rows, names = [], [OURS, PIPELINE, EIR]
    lit_python = None
    if peers == "true":
        try:
            requirements = Path(__file__).parent / "serve_sides" / "requirements.txt"
            lit_python = python_of("litserve", BUILD / "environments", requirements=requirements)
            names.insert(1, LIT)
        except RuntimeError as error:
            rows.append(missing("requests/s at saturation against LitServe", f"it does not install: {error}"))
    found = measure(Sides(checkpoint, lit_python), names, rounds=rounds, seconds=seconds)
    mix = "steps mixed from 4, 8, 15, 50"
    if LIT in names:
        rows.append(compared(found, OURS, LIT, f"requests/s at saturation, {mix}", "rate", at_least=2, **here))
        what = "p95 of 4-step requests at 80 % load, s"
        rows.append(compared(found, OURS, LIT, what, "p95", at_least=4, invert=True, **here))
    rows.append(compared(found, OURS, PIPELINE, f"requests/s, {mix}", "rate", at_least=4, **here))
    what = "requests/s: DPM-Solver++ steps mixed against DDIM 200"
    rows.append(compared(found, OURS, EIR, what, "rate", at_least=50, **here))
    ours, bare, ratio = engine_overhead(checkpoint, rounds=2 * rounds)
    rows.append(
        claim(
            "engine ticks/s, 8 guided pictures in 16 rows",
            ours=ours,
            peer=bare,
            peer_name="the same network calls alone",
            ratio=ratio,
            goal=">= 0.9",
            holds=ratio >= 0.9,
            **here,
        )
    )
    ours_bytes, theirs_bytes = answer_bytes()
    rows.append(
        claim(
            "bytes per 128 px answer",
            ours=ours_bytes,
            peer=theirs_bytes,
            peer_name="base64 of float32",
            ratio=theirs_bytes / ours_bytes,
            goal=">= 8",
            holds=theirs_bytes >= 8 * ours_bytes,
            **here,
        )
    )
    calls = first_preview(checkpoint)
    rows.append(figure("network calls before the first preview", calls, **here))
    rows.append(figure("start to ready, s", statistics.median(found[OURS]["ready"]), **here))
    write("serve", rows)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    numbers = {"rounds": int, "seconds": float}
    main(**{name: numbers.get(name, str)(value) for name, value in words.items()})
