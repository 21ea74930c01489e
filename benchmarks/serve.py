"""How fast a trained model is served: our engine, a general batching server, a pipeline per request, EIR's way.

    python benchmarks/serve.py [run=logs/quickstart] [rounds=5] [seconds=15] [peers=true] [judged_captions=240]

All sides serve the same checkpoint on the same cores, with the same sampler (DPM-Solver++ 2M), guidance and precision
(bfloat16), PNGs in base64, and the same clients. The peers paint with a pipeline of diffusers' network, scheduler and
loop, which is as fast as ours. Requests ask for 4, 8, 15 or 50 steps at random. Each round starts every side afresh, in
an order that turns; a ratio is the median of those within the rounds. At 80 % load means: requests arrive at random at
0.8 of the rate at which LitServe was saturated in that round, at both. EIR's way is DDIM of 200 steps, eta 0.2,
float32, one at a time; equal quality means the fewest of our steps whose pictures follow their captions as well as
those, to a standard error of the difference. Our server compiles its network when it has painted for a minute, where
it can (`compile=auto`): `ours` is before, with `compile=false`, `ours, once compiled` after.
"""

from __future__ import annotations

import base64
import statistics
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from judged import as_good, shares
from record import below, claim, command, figure, machine, missing, write
from serve_sides.model import EIR_SAMPLER, GUIDANCE_SCALE, SAMPLER
from serve_sides.overhead import call_ms, engine_overhead, first_preview
from serve_sides.servers import BUILD, Server, litserve, ours, ours_compiled, plain
from stream_peers.environments import python_of
from stream_sides.running import SideError, run

from diffusion_art.checkpoints import find_checkpoint
from diffusion_art.diffusion.samplers import by_name
from diffusion_art.runs import load_run
from diffusion_art.serving.api.predict import as_floats
from diffusion_art.sheets import encode
from diffusion_art.sources.base import Picture
from diffusion_art.sources.painter import Painter

STEPS = [4, 8, 15, 50]
CLIENTS = 32
LOAD = 0.8
EIR_ANSWERS = 3
OURS, COMPILED = "ours", "ours, once compiled"
LIT, PIPELINE, EIR = "LitServe, max_batch_size 16", "FastAPI, a pipeline per request", "EIR's way"


@dataclass
class Found:
    """What was measured of a side, round by round."""

    rate: list[float] = field(default_factory=list)
    equal: list[float] = field(default_factory=list)
    p95: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)


class Sides:
    """The servers by name, each started when used."""

    def __init__(self, checkpoint: Path, lit_python: Path | None) -> None:
        self.checkpoint, self.lit_python = checkpoint, lit_python

    def start(self, name: str) -> AbstractContextManager[Server]:
        if name == OURS:
            return ours(self.checkpoint)
        if name == COMPILED:
            return ours_compiled(self.checkpoint)
        if name == LIT:
            assert self.lit_python is not None
            return litserve(self.checkpoint, self.lit_python)
        return plain(self.checkpoint, way="eir" if name == EIR else "pipeline")


def load(server: Server, steps: Sequence[int] = STEPS, **arguments: Any) -> dict:
    found = run(sys.executable, "serve_sides.load", {"url": server.url, "steps": steps, **arguments}, limit_s=600)
    if found.get("rate") == 0:
        raise SideError("no request was answered in the time that counts: give more seconds=..., or an idle machine")
    return found


def measure(sides: Sides, names: list[str], *, equal: int, rounds: int, seconds: float) -> dict[str, Found]:
    """By side: rates when saturated, 95th percentiles of 4-step requests at load, seconds until ready. Ours also: the
    rate of requests for `equal` steps.
    """
    found = {name: Found() for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            with sides.start(name) as server:
                found[name].ready.append(server.ready_s)
                if name == EIR:
                    found[name].rate.append(load(server, answers=EIR_ANSWERS)["rate"])
                else:
                    found[name].rate.append(load(server, clients=CLIENTS, seconds=seconds)["rate"])
                if name == OURS:
                    found[name].equal.append(load(server, [equal], clients=CLIENTS, seconds=seconds)["rate"])
            rate, ready_s = found[name].rate[-1], found[name].ready[-1]
            print(f"round {number + 1}, {name}: {rate:.2f} requests/s, ready in {ready_s:.1f} s", flush=True)
        for name in (OURS, LIT) if LIT in names else ():
            with sides.start(name) as server:
                times = load(server, rate=LOAD * found[LIT].rate[-1], seconds=2 * seconds)
            found[name].p95.append(float(np.percentile(times["4"], 95)))
            print(f"round {number + 1}, {name}: p95 of 4 steps {found[name].p95[-1]:.2f} s", flush=True)
    return found


def quality(checkpoint: Path, *, count: int) -> tuple[int, list[dict[str, Any]]]:
    """The fewest steps of ours that follow captions as well as EIR's way, and what each way reached."""
    run = load_run(checkpoint)
    if run.guidance_scale() != GUIDANCE_SCALE:
        raise SystemExit(f"run={checkpoint} guides at {run.guidance_scale():g}; these servers at {GUIDANCE_SCALE:g}")
    found = {EIR: shares(run, EIR_SAMPLER, count=count, fast=False)}
    found |= {f"{steps} steps": shares(run, by_name(SAMPLER, num_steps=steps), count=count) for steps in STEPS[:-1]}
    rows = [
        figure(f"{part} found by the judge, % of {count}: {name}", 100 * value)
        for name, of_way in found.items()
        for part, value in of_way.items()
    ]
    good = [n for n in STEPS[:-1] if as_good(found[f"{n} steps"], found[EIR], count=count)]
    return min(good, default=STEPS[-1]), rows


def compared(
    found: dict[str, Found],
    theirs: str,
    measure: str,
    key: str,
    *,
    at_least: float,
    their_key: str | None = None,
    side: str = OURS,
    invert: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """A claim of `side`, one of ours, against theirs; `invert` where smaller is better."""
    measure = measure if side == OURS else f"{measure}, {side.removeprefix(f'{OURS}, ')}"
    pairs = list(zip(getattr(found[side], key), getattr(found[theirs], their_key or key), strict=True))
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


def answer_bytes() -> tuple[int, int, int]:
    """Base64 of a picture of 128 px, as it travels: our PNG of a painting, our PNG of noise, float32 pixels."""
    painter = Painter(count=8, image_size_px=128)
    every = (item for chunk in painter.chunks() for item in painter.pictures(chunk))
    paintings = [item.image for item in every if isinstance(item, Picture) and isinstance(item.image, np.ndarray)]
    noise = np.random.default_rng(0).integers(0, 256, paintings[0].shape, dtype=np.uint8)
    sizes = [len(base64.b64encode(encode(picture, format="png"))) for picture in (*paintings, noise)]
    return round(statistics.mean(sizes[:-1])), sizes[-1], len(base64.b64encode(as_floats(noise)))


def main(
    run: str = "logs/quickstart",
    rounds: int = 5,
    seconds: float = 15.0,
    peers: str = "true",
    judged_captions: int = 240,
) -> None:
    checkpoint = find_checkpoint(run)
    given = {"run": run, "rounds": rounds, "seconds": seconds, "peers": peers, "judged_captions": judged_captions}
    here = {"command": command("serve", **given), **machine()}
    rows, names = [], [OURS, COMPILED, PIPELINE, EIR]
    lit_python = None
    if peers == "true":
        try:
            requirements = Path(__file__).parent / "serve_sides" / "requirements.txt"
            lit_python = python_of("litserve", BUILD / "environments", requirements=requirements)
            names.insert(2, LIT)
        except RuntimeError as error:
            rows.append(missing("requests/s at saturation against LitServe", f"it does not install: {error}"))
    equal, found_by_judge = quality(checkpoint, count=judged_captions)
    found = measure(Sides(checkpoint, lit_python), names, equal=equal, rounds=rounds, seconds=seconds)
    mix = "steps mixed from 4, 8, 15, 50"
    if LIT in names:
        what = f"requests/s at saturation, {mix}"
        rows += [compared(found, LIT, what, "rate", side=side, at_least=2, **here) for side in (OURS, COMPILED)]
        what = "p95 of 4-step requests at 80 % load, s"
        rows.append(compared(found, LIT, what, "p95", at_least=4, invert=True, **here))
    what = f"requests/s, {mix}"
    rows += [compared(found, PIPELINE, what, "rate", side=side, at_least=4, **here) for side in (OURS, COMPILED)]
    what = f"requests/s at equal quality: DPM-Solver++ in {equal} steps against DDIM in 200"
    rows.append(compared(found, EIR, what, "equal", their_key="rate", at_least=50, **here))
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
    ours_bytes, noise_bytes, theirs_bytes = answer_bytes()
    rows.append(
        claim(
            "bytes per 128 px answer, paintings as the painter draws them",
            ours=ours_bytes,
            peer=theirs_bytes,
            peer_name="base64 of float32",
            ratio=theirs_bytes / ours_bytes,
            goal=">= 8",
            holds=theirs_bytes >= 8 * ours_bytes,
            **here,
        )
    )
    rows.append(figure("bytes per 128 px answer, noise: the most there can be", noise_bytes, **here))
    calls = first_preview(checkpoint)
    rows.append(below("network calls before the first preview", calls, 2, goal="<= 2", **here))
    alone = {pictures: call_ms(checkpoint, pictures) for pictures in (1, 4, 8, 16)}
    rows += [figure(f"one network call alone, ms: {2 * n} rows, {n} guided pictures", ms) for n, ms in alone.items()]
    most = alone[1] / (alone[16] / 16)
    rows.append(figure("so batches of 32 rows can make of requests/s, one picture at a time, at most x", most))
    ready_s = statistics.median(found[OURS].ready)
    rows.append(below("start to ready, s", ready_s, 6, goal="<= 6 s", **here))
    rows += [figure(f"start to ready, s: {name}", statistics.median(found[name].ready)) for name in names[1:]]
    write("serve", rows + found_by_judge)


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    numbers = {"rounds": int, "seconds": float, "judged_captions": int}
    main(**{name: numbers.get(name, str)(value) for name, value in words.items()})
