"""Paint from captions: `python -m diffusion_art.sample run=logs/quickstart 'prompts=["..."]'`.

Writes a PNG for each picture and a grid of them all. Each PNG says in its text chunks what was asked: prompt,
negative prompt, seed, checkpoint, sampler, steps and guidance, so that it can be painted again; `parameters` says it in
the words of AUTOMATIC1111's web UI, for the tools that read those.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

import logging
import re
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffusion_art.accel import switch
from diffusion_art.accel.graphs import Captured
from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.devices import pick_device
from diffusion_art.errors import UserError
from diffusion_art.images import save_grid, to_png
from diffusion_art.infotext import KEY as INFOTEXT
from diffusion_art.prompts import read_prompts
from diffusion_art.runs import Run, load_run

log = logging.getLogger(__name__)


def sample(config: DictConfig) -> Path:
    """Paint what the config asks for. Returns the folder of the pictures."""
    settings = plain(config)
    _check(settings)
    run = load_run(
        settings["run"],
        which=settings["checkpoint"],
        weights=settings["weights"],
        device=pick_device(settings["device"]),
    )
    prompts = [prompt for prompt in prompts_of(settings["prompts"], run) for _ in range(settings["count"])]
    negative_prompt = settings["negative_prompt"] or ""
    seeds = [settings["seed"] + row for row in range(len(prompts))]
    chosen = build(settings["sampler"]) if settings.get("sampler") else None
    sampler = run.sampler(chosen, num_steps=settings["num_steps"])
    guidance_scale, guidance = run.guidance_scale(settings["guidance_scale"]), run.guidance(**settings["guidance"])
    guide = (
        load_run(settings["guide"], weights=settings["weights"], device=str(run.device)) if settings["guide"] else None
    )

    size = run.size_of(settings["size"])
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
        size=size,
        batch_size=settings["batch_size"],
        progress=sys.stderr.isatty(),
    )
    taken_s = time.monotonic() - started

    out = Path(settings["out"] or run.path / "samples" / time.strftime("%Y-%m-%d_%H-%M-%S"))
    shared: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "run": run.name,
        **({"guide": guide.checkpoint_id} if guide else {}),
        **run.story(sampler, guidance_scale=guidance_scale, guidance=guidance),
    }
    for number, (image, prompt, seed) in enumerate(zip(images, prompts, seeds)):
        asked = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed}
        parameters = run.parameters(**asked, sampler=sampler, guidance_scale=guidance_scale, size=size)
        story = {INFOTEXT: parameters, **asked, **shared}
        to_png(image, out / f"{number:03d}_{slug(prompt)}.png", story)
    title = f"{run.checkpoint_id}  {sampler.name} {sampler.num_steps} steps  guidance {guidance_scale:g}"
    save_grid(images, prompts, out / "grid.png", title=title, metadata={"seeds": seeds, **shared})
    log.info("%d pictures in %.1f s: %s", len(images), taken_s, out / "grid.png")
    return out


def _check(settings: dict[str, Any]) -> None:
    if not isinstance(count := settings["count"], int) or count < 1:
        raise UserError(f"count={count} must be a whole number from 1 on: it is how often each prompt is painted.")
    if not isinstance(seed := settings["seed"], int):
        raise UserError(f"seed={seed} must be a whole number, such as seed=0.")


def prompts_of(asked: Any, run: Run) -> list[str]:
    """The prompts asked for (see `read_prompts`); without any, the run's own.

    Raises:
        UserError: nothing asked for, and a run without prompts.
    """
    if asked is not None:
        return read_prompts(asked)
    if not run.prompts:
        raise UserError('give prompts to paint, such as \'prompts=["a red house", "a blue house"]\'.')
    return run.prompts


def slug(prompt: str) -> str:
    """A prompt as part of a file name: short, plain and never empty."""
    plain_letters = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain_letters)[:48].strip("-") or "picture"


main = command("sample")(sample)


if __name__ == "__main__":
    main()
