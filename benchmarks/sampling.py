"""What a sampler costs beside the network, and pictures per second at equal quality from one checkpoint.

    python benchmarks/sampling.py [rounds=9] [run=logs/quickstart] [student=logs/distill] [count=240]

Overhead: our samplers against diffusers' schedulers of the same name, driven as its pipelines drive them
(`set_timesteps`, then `scale_model_input`, network, `step`), at equally many calls of the same network, from the same
noise; both must end on the same picture before they are timed. Once around a network that answers at once, so that
all the time is the sampler's own, and once around the quickstart's UNet. Sides alternate; the ratio is the median of
the rounds.

With `run`: a trained checkpoint painted EIR's way (DDIM of 200 steps, eta 0.2, float32, one picture at a time) and
ours, at the run's own guidance. Ours is the first of `OURS` whose caption following, style and palette over `count`
unseen prompts, is that of EIR's way to a standard error of the difference. It is measured in batches, which paint the
same pictures. With `student` too, taught by that run: the fewest calls of `STUDENT` at which it follows as well.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from judged import as_good, painter, shares
from record import claim, command, figure, machine, write
from serve_sides.model import EIR_SAMPLER as EIR
from torch import Tensor

from diffusion_art.config import build, config_dir, plain
from diffusion_art.diffusion.denoiser import Denoiser, V
from diffusion_art.diffusion.samplers import by_name
from diffusion_art.diffusion.samplers.consistency import Consistency
from diffusion_art.diffusion.schedules import DiscreteSchedule
from diffusion_art.runs import Run, load_run
from diffusion_art.tensors import Conditioning

N = 1000
SHAPE = (12, 16, 16)  # of the quickstart's latents
PEERS = {"ddim": DDIMScheduler, "dpmpp_2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
SETTINGS = {"beta_schedule": "linear", "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
EXTRA = {"ddim": {"clip_sample": False}, "dpmpp_2m": {}, "unipc": {"final_sigmas_type": "zero"}}
BATCH, NUM_STEPS, NETWORK_STEPS = 4, 50, 10

OURS = [by_name(name, num_steps=n) for n in (4, 5, 6, 8, 10, 12, 16, 20) for name in ("unipc", "dpmpp_2m")]
STUDENT = [Consistency(num_steps=n) for n in (1, 2, 4)]
OUR_BATCH, GOAL, STUDENT_GOAL = 16, 30, 150


# ---------------------------------------------------------------------- overhead


def theirs(kind: str, network: Callable[[Tensor, Tensor], Tensor], num_steps: int) -> Callable[[Tensor], Tensor]:
    scheduler = PEERS[kind](**SETTINGS, **EXTRA[kind])

    @torch.no_grad()
    def paint(x: Tensor) -> Tensor:
        scheduler.set_timesteps(num_steps)
        for k in scheduler.timesteps:
            shown = scheduler.scale_model_input(x, k)
            x = scheduler.step(network(shown, k.expand(len(x))), k, x, return_dict=False)[0]
        return x

    return paint


def ours(kind: str, network: Callable[[Tensor, Tensor], Tensor], num_steps: int) -> Callable[[Tensor], Tensor]:
    scheduler = PEERS[kind](**SETTINGS, **EXTRA[kind])
    scheduler.set_timesteps(num_steps)
    schedule = DiscreteSchedule(scheduler.betas)
    times = torch.cat([(scheduler.timesteps.double() + 1) / N, torch.zeros(1, dtype=torch.float64)])
    denoiser = Denoiser(lambda x_t, t: network(x_t, t * N - 1), schedule=schedule, prediction=V())
    sampler = by_name(kind)
    return lambda x: sampler.sample(denoiser, x, times=times)


def instant() -> Callable[[Tensor, Tensor], Tensor]:
    """A network that costs nothing: it answers a tenth of what it is shown."""
    return lambda x_t, k: x_t * 0.1


def quickstart_unet() -> Callable[[Tensor, Tensor], Tensor]:
    from omegaconf import OmegaConf

    torch.manual_seed(0)
    node = plain(OmegaConf.load(config_dir() / "model" / "backbone" / "unet_tiny.yaml"))
    unet = build(node)(channels=SHAPE[0], sample_size=SHAPE[1], cross_attention_dim=192, pooled_dim=192).eval()
    cond = Conditioning(torch.randn(BATCH, 16, 192), torch.ones(BATCH, 16, dtype=torch.bool), torch.randn(BATCH, 192))
    return lambda x_t, k: unet(x_t, (k + 1) / N, cond)


def overhead(kind: str, network: Callable[[Tensor, Tensor], Tensor], *, alone: bool, rounds: int, command: str) -> Any:
    num_steps, least = (NUM_STEPS, 1.5) if alone else (NETWORK_STEPS, 1.0)
    x_T = torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))
    sides = ours(kind, network, num_steps), theirs(kind, network, num_steps)
    torch.testing.assert_close(sides[0](x_T), sides[1](x_T), atol=2e-3, rtol=1e-3)
    timed = [[seconds(lambda side=side: side(x_T)) for side in sides] for _ in range(rounds)]
    ratios = [their_s / our_s for our_s, their_s in timed]
    our_ms, their_ms = (1e3 * statistics.median(side) / num_steps for side in zip(*timed))
    what = "the sampler alone" if alone else "with the quickstart's UNet"
    return claim(
        f"ms a step, {kind}, {num_steps} steps, batch {BATCH}, {what}",
        ours=our_ms,
        peer=their_ms,
        peer_name=f"diffusers {PEERS[kind].__name__}",
        ratio=statistics.median(ratios),
        goal=f">= {least}",
        holds=statistics.median(ratios) >= least,
        ratios=ratios,
        command=command,
        **machine(),
    )


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# ---------------------------------------------------------------------- pictures per second at equal quality


def equal_quality(run: Run, student: Run | None, *, rounds: int, count: int, command: str) -> list[dict[str, Any]]:
    """EIR's way, and what ours and the student's pictures per second are where they follow captions as well."""
    goal = shares(run, EIR, count=count, fast=False)
    rows = told("EIR's way", goal, count)
    slow = painter(run, EIR, batch_size=1, fast=False)
    sides = [("", run, OURS, GOAL)] + ([] if student is None else [("student, ", student, STUDENT, STUDENT_GOAL)])
    for name, painted_by, samplers, least in sides:
        reached, sampler = goal, samplers[0]
        for sampler in samplers:
            reached = shares(painted_by, sampler, count=count)
            rows += told(f"{name}{sampler.name} {sampler.num_steps} steps", reached, count)
            if as_good(reached, goal, count=count):
                break
        alike = as_good(reached, goal, count=count)
        timed = rates(painter(painted_by, sampler, batch_size=OUR_BATCH, fast=True), slow, rounds=rounds)
        ratios = [a / b for a, b in timed]
        ratio = statistics.median(ratios)
        how = "equal caption following" if alike else f"style {reached['style']:.3f} for {goal['style']:.3f}"
        rows.append(
            claim(
                f"images/s at {how}: {name}{sampler.name} {sampler.num_steps} steps, batch {OUR_BATCH}",
                ours=statistics.median(a for a, _ in timed),
                peer=statistics.median(b for _, b in timed),
                peer_name="EIR's way: DDIM 200 steps, eta 0.2, float32, batch 1",
                ratio=ratio,
                goal=f">= {least}",
                holds=ratio >= least and alike,
                ratios=ratios,
                checkpoint=painted_by.checkpoint_id,
                command=command,
                **machine(),
            )
        )
    return rows


def told(way: str, found: dict[str, float], count: int) -> list[dict[str, Any]]:
    return [figure(f"{part} found by the judge, % of {count}: {way}", 100 * share) for part, share in found.items()]


def rates(
    fast: Callable[[list[str], list[int]], Tensor], slow: Callable[[list[str], list[int]], Tensor], *, rounds: int
) -> list[tuple[float, float]]:
    """Pictures per second of each in turn: a batch of `fast`, one of `slow`."""
    prompts, seeds = ["Claude Monet / Sunrise / Impressionism"] * OUR_BATCH, list(range(OUR_BATCH))
    fast(prompts, seeds)  # warms up
    return [
        (OUR_BATCH / seconds(lambda: fast(prompts, seeds)), 1 / seconds(lambda: slow(prompts[:1], seeds[:1])))
        for _ in range(rounds)
    ]


def main(rounds: int = 9, run: str | None = None, student: str | None = None, count: int = 240) -> None:
    given = {"run": run, "student": student, "count": count} if run else {}
    line = command("sampling", rounds=rounds, **{name: value for name, value in given.items() if value is not None})
    networks = {True: instant(), False: quickstart_unet()}
    rows = [
        overhead(kind, network, alone=alone, rounds=rounds, command=line)
        for kind in PEERS
        for alone, network in networks.items()
    ]
    if run is not None:
        taught = None if student is None else load_run(student)
        rows += equal_quality(load_run(run), taught, rounds=max(1, rounds // 3), count=count, command=line)
    write("sampling", rows)


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    main(**{name: value if name in ("run", "student") else int(value) for name, value in words.items()})
