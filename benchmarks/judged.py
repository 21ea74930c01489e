"""How well a way of painting follows captions, and when one does as well as another.

The judge looks for the style and for both colours in pictures of unseen prompts, the same prompts and noise for every
way, painted in batches. What it found is kept under build/judged: DDIM of 200 steps takes minutes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diffusion_art.devices import computes_in_bf16
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.evaluation.caption_following import caption_following
from diffusion_art.runs import Run

KEPT = Path(__file__).parents[1] / "build" / "judged"
PARTS = ("style", "palette")
BATCH = 48


def painter(run: Run, sampler: Sampler, *, batch_size: int, fast: bool) -> Callable[[list[str], list[int]], Tensor]:
    """(captions, seeds) -> pictures at the run's own guidance, in bfloat16 where the machine computes in it and `fast`,
    else in float32.
    """
    scale, guidance = run.guidance_scale(), run.guidance()

    def generate(captions: list[str], seeds: list[int]) -> Tensor:
        with torch.autocast(run.device.type, torch.bfloat16, enabled=fast and computes_in_bf16(run.device)):
            return run.model.generate(
                captions, seeds=seeds, sampler=sampler, guidance_scale=scale, **guidance, batch_size=batch_size
            )

    return generate


def shares(run: Run, sampler: Sampler, *, count: int, fast: bool = True) -> dict[str, float]:
    """Of `count` pictures by `painter`: in which the style was found, and in which both colours."""
    asked = [run.checkpoint_id, sampler.describe(), run.guidance_scale(), run.guidance(), count, fast]
    file = KEPT / f"{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]}.json"
    if not file.exists():
        generate = painter(run, sampler, batch_size=BATCH, fast=fast)
        found = caption_following(generate, count=count, held_out_count=0)
        KEPT.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({part: found[part] for part in PARTS}))
    return json.loads(file.read_text())


def as_good(ours: dict[str, float], theirs: dict[str, float], *, count: int) -> bool:
    """Whether neither share is below theirs by more than a standard error of the difference of two such shares."""
    return all(ours[part] >= theirs[part] - error_of_difference(ours[part], theirs[part], count) for part in PARTS)


def error_of_difference(a: float, b: float, count: int) -> float:
    """The standard error of a - b, each a share of `count` verdicts independent of the other's.

    The verdicts are of the same prompts, so that they are alike and the true error is smaller: no difference that can
    be told is called equal by more than this.
    """
    return ((a * (1 - a) + b * (1 - b)) / count) ** 0.5
