"""Paint from captions: `python -m diffusion_art.sample run=logs/quickstart 'prompts=["..."]'`.

Writes a file for each picture and a grid of them all. A PNG says in its text chunks what was asked: prompt,
negative prompt, seed, checkpoint, sampler, steps and guidance, so that it can be painted again; `parameters` says it in
the words of AUTOMATIC1111's web UI, for the tools that read those. JPEG and WebP say it in their EXIF.
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
from torch import Tensor

from diffusion_art.accel import switch
from diffusion_art.accel.graphs import Captured
from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.devices import pick_device
from diffusion_art.diffusion.samplers import seeds_from
from diffusion_art.errors import UserError
from diffusion_art.images import save_grid, to_file
from diffusion_art.prompts import prompts_of
from diffusion_art.runs import load_run
from diffusion_art.sheets import INFOTEXT
from diffusion_art.units import counted

log = logging.getLogger(__name__)

FORMATS = ("png", "jpg", "jpeg", "webp")


def sample(config: DictConfig) -> Path:
    """Paint what the config asks for, picture i from seed + i. Returns the folder of the pictures."""
    asked = plain(config)
    _check(asked)
    weights, device = asked["weights"], pick_device(asked["device"])
    run = load_run(asked["run"], which=asked["checkpoint"], weights=weights, device=device)
    prompts = [prompt for prompt in prompts_of(asked["prompts"], run) for _ in range(asked["count"])]
    sampler = run.sampler(build(asked["sampler"]) if asked.get("sampler") else None, num_steps=asked["num_steps"])
    how = {"sampler": sampler, "guidance_scale": run.guidance_scale(asked["guidance_scale"])}
    guidance, negative = run.guidance(**asked["guidance"]), asked["negative_prompt"] or ""
    guide = load_run(asked["guide"], weights=weights, device=str(run.device)) if asked["guide"] else None
    seeds, size = seeds_from(asked["seed"], len(prompts)), run.size_of(asked["size"])
    started = time.monotonic()
    images = run.model.generate(
        prompts,
        seeds=seeds,
        **how,
        **guidance,
        guide=guide.model if guide else None,
        network=Captured.of(run.model.backbone) if run.device.type == "cuda" and switch.ACCELERATES else None,
        negative_prompts=[negative] * len(prompts),
        size=size,
        batch_size=asked["batch_size"],
        progress=sys.stderr.isatty(),
    )
    taken_s = time.monotonic() - started
    shared: dict[str, Any] = {"negative_prompt": negative, "run": run.name}
    shared |= ({"guide": guide.checkpoint_id} if guide else {}) | run.story(**how, guidance=guidance)
    own = [{"prompt": text, "negative_prompt": negative, "seed": seed} for text, seed in zip(prompts, seeds)]
    stories = [{INFOTEXT: run.parameters(**each, **how, size=size), **each, **shared} for each in own]
    out = Path(asked["out"]) if asked["out"] else run.path / "samples" / time.strftime("%Y-%m-%d_%H-%M-%S")
    _write(images, stories, out, format=asked["format"], quality=asked["quality"])
    if asked["grid"]:
        title = f"{run.checkpoint_id}  {sampler.name} {sampler.num_steps} steps  guidance {how['guidance_scale']:g}"
        save_grid(images, prompts, out / "grid.png", title=title, metadata={"seeds": seeds, **shared})
    log.info("%s in %.1f s: %s", counted(len(images)), taken_s, out / "grid.png" if asked["grid"] else out)
    return out


def _write(images: Tensor, stories: list[dict[str, Any]], out: Path, *, format: str, quality: int | None) -> None:
    """A file for each picture, in which its story is told."""
    for number, (image, story) in enumerate(zip(images, stories)):
        file = out / f"{number:03d}_{slug(story['prompt'])}.{format}"
        to_file(image, file, story, format=format.replace("jpg", "jpeg"), quality=quality)


def slug(prompt: str) -> str:
    """A prompt as part of a file name: short, plain and never empty."""
    plain_letters = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain_letters)[:48].strip("-") or "picture"


def _check(asked: dict[str, Any]) -> None:
    if not isinstance(count := asked["count"], int) or count < 1:
        raise UserError(f"count={count} must be a whole number from 1 on: it is how often each prompt is painted.")
    if not isinstance(seed := asked["seed"], int | None) or isinstance(seed, bool):
        raise UserError(f"seed={seed} must be a whole number, such as seed=0, or -1 for any.")
    if (format := asked["format"]) not in FORMATS:
        raise UserError(f"format={format} must be one of {', '.join(FORMATS)}.")
    if (quality := asked["quality"]) is not None and (quality not in range(1, 101) or format == "png"):
        raise UserError(f"quality={quality} must be a whole number from 1 to 100, for format=jpg or format=webp.")


main = command("sample")(sample)


if __name__ == "__main__":
    main()
