"""Paint from captions: `python -m diffusion_art.sample run=logs/quickstart 'prompts=["..."]'`.

Writes a file for each picture and a grid of them all. A PNG says in its text chunks what was asked: prompt,
negative prompt, seed, checkpoint, sampler, steps and guidance, so that it can be painted again; `parameters` says it in
the words of AUTOMATIC1111's web UI, for the tools that read those. JPEG and WebP say it in their EXIF.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.devices import pick_device
from diffusion_art.errors import UserError
from diffusion_art.paintings import paint
from diffusion_art.prompts import prompts_of
from diffusion_art.runs import load_run

FORMATS = ("png", "jpg", "jpeg", "webp")


def sample(config: DictConfig) -> Path:
    """Paint what the config asks for. Returns the folder of the pictures."""
    asked = plain(config)
    _check(asked)
    weights, device = asked["weights"], pick_device(asked["device"])
    run = load_run(asked["run"], which=asked["checkpoint"], weights=weights, device=device)
    prompts = [prompt for prompt in prompts_of(asked["prompts"], run) for _ in range(asked["count"])]
    chosen = build(asked["sampler"]) if asked.get("sampler") else None
    return paint(
        run,
        prompts,
        seed=asked["seed"],
        negative_prompt=asked["negative_prompt"] or "",
        sampler=run.sampler(chosen, num_steps=asked["num_steps"]),
        guidance_scale=run.guidance_scale(asked["guidance_scale"]),
        guidance=run.guidance(**asked["guidance"]),
        guide=load_run(asked["guide"], weights=weights, device=str(run.device)) if asked["guide"] else None,
        size=asked["size"],
        batch_size=asked["batch_size"],
        grid=asked["grid"],
        format=asked["format"],
        quality=asked["quality"],
        out=Path(asked["out"]) if asked["out"] else None,
    )


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
