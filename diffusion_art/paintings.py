"""Pictures painted from a run into files: one for each, a grid of them all, and in each what was asked of it."""

from __future__ import annotations

import logging
import re
import sys
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_art.accel import switch
from diffusion_art.accel.graphs import Captured
from diffusion_art.diffusion.noise import seeds_from
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.images import save_grid, to_file
from diffusion_art.runs import Run
from diffusion_art.sheets import INFOTEXT
from diffusion_art.units import counted

log = logging.getLogger(__name__)


def paint(
    run: Run,
    prompts: Sequence[str],
    *,
    seed: int | None,
    negative_prompt: str,
    sampler: Sampler,
    guidance_scale: float,
    guidance: dict[str, Any],
    guide: Run | None,
    size: str | None,
    batch_size: int,
    out: Path | None,
    grid: bool = True,
    format: str = "png",
    quality: int | None = None,
) -> Path:
    """Paint picture i from seed + i (None or -1: any) into the folder `out`, None for one in the run's `samples`, with
    a `grid` of them all, a PNG. `format` is png, jpg or webp, `quality` that of the last two. Returns the folder.

    Raises:
        UserError: a setting that means nothing, or a size that the run does not paint.
    """
    seeds = seeds_from(seed, len(prompts))
    painted = run.size_of(size)
    started = time.monotonic()
    images = run.model.generate(
        prompts,
        seeds=seeds,
        sampler=sampler,
        guidance_scale=guidance_scale,
        **guidance,
        guide=guide.model if guide else None,
        network=Captured.of(run.model.backbone) if run.device.type == "cuda" and switch.ACCELERATES else None,
        negative_prompts=[negative_prompt] * len(prompts),
        size=painted,
        batch_size=batch_size,
        progress=sys.stderr.isatty(),
    )
    taken_s = time.monotonic() - started

    out = out or run.path / "samples" / time.strftime("%Y-%m-%d_%H-%M-%S")
    shared: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "run": run.name,
        **({"guide": guide.checkpoint_id} if guide else {}),
        **run.story(sampler, guidance_scale=guidance_scale, guidance=guidance),
    }
    for number, (image, prompt, seed) in enumerate(zip(images, prompts, seeds)):
        asked = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}
        parameters = run.parameters(**asked, sampler=sampler, guidance_scale=guidance_scale, size=painted)
        story = {INFOTEXT: parameters, **asked, **shared}
        file = out / f"{number:03d}_{slug(prompt)}.{format}"
        to_file(image, file, story, format=format.replace("jpg", "jpeg"), quality=quality)
    title = f"{run.checkpoint_id}  {sampler.name} {sampler.num_steps} steps  guidance {guidance_scale:g}"
    if grid:
        save_grid(images, prompts, out / "grid.png", title=title, metadata={"seeds": seeds, **shared})
    log.info("%s in %.1f s: %s", counted(len(images)), taken_s, out / "grid.png" if grid else out)
    return out


def slug(prompt: str) -> str:
    """A prompt as part of a file name: short, plain and never empty."""
    plain_letters = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain_letters)[:48].strip("-") or "picture"
