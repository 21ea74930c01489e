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
import statistics
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from record import claim, figure, machine, missing, write
from serve_sides.overhead import engine_overhead, first_preview
from serve_sides.servers import BUILD, Server, litserve, ours, plain
from stream_peers.environments import python_of
from stream_sides.running import run

from diffusion_art.checkpoints import find_checkpoint
from diffusion_art.serving.encode import encode
from diffusion_art.sources.base import Picture
from diffusion_art.sources.painter import Painter

STEPS = [4, 8, 15, 50]
CLIENTS = 32
OURS, LIT, PIPELINE, EIR = "ours", "LitServe, max_batch_size 16", "FastAPI, a pipeline per request", "EIR's way"


class Sides:
    """The servers by name, each started when used."""

    def __init__(self, checkpoint: Path, lit_python: Path | None) -> None:
        self.checkpoint, self.lit_python = checkpoint, lit_python

    def start(self, name: str) -> AbstractContextManager[Server]:
        if name == OURS:
            return ours(self.checkpoint)
        if name == LIT:
            assert self.lit_python is not None
            return litserve(self.checkpoint, self.lit_python)
        return plain(self.checkpoint, way="eir" if name == EIR else "pipeline")


def load(url: str, **arguments: Any) -> dict:
    return run(sys.executable, "serve_sides.load", {"url": url, "steps": STEPS, **arguments}, limit_s=600)


def measure(sides: Sides, names: list[str], *, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """By side: rates when saturated, 95th percentiles of 4-step requests at load, seconds until ready."""
    found: dict[str, dict[str, list[float]]] = {name: {"rate": [], "p95": [], "ready": []} for name in names}
    for number in range(rounds):
        turn = number % len(names)
        saturated = {}
        for name in names[turn:] + names[:turn]:
            with sides.start(name) as server:
                found[name]["ready"].append(server.ready_s)
                clients = CLIENTS if name != EIR else 2
                saturated[name] = load(server.url, clients=clients, seconds=seconds)["rate"]
                found[name]["rate"].append(saturated[name])
            print(
                f"round {number + 1}, {name}: {saturated[name]:.2f} requests/s, ready in {server.ready_s:.1f} s",
                flush=True,
            )
        for name in (OURS, LIT) if LIT in names else ():
            with sides.start(name) as server:
                times = load(server.url, rate=0.8 * saturated[LIT], seconds=2 * seconds)
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


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    numbers = {"rounds": int, "seconds": float}
    main(**{name: numbers.get(name, str)(value) for name, value in words.items()})
