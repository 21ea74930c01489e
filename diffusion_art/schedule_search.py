"""Find the times at which a few steps do best: `python -m diffusion_art.schedule_search run=... num_steps=8`.

Writes `times_<sampler>_<num_steps>.json` into the run folder and prints the override by which `sample` and training
take the grid. The grid is fitted to pictures of the prompts, and compared with the common spacings on other noise.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import Progress
from torch import Tensor

from diffusion_art.checkpoints import check_paints
from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.devices import pick_device
from diffusion_art.diffusion.samplers import NoiseSource
from diffusion_art.diffusion.time_search import errors_of_grids, search_times
from diffusion_art.errors import UserError
from diffusion_art.files import written
from diffusion_art.prompts import prompts_of
from diffusion_art.runs import load_run

log = logging.getLogger(__name__)


def schedule_search(config: DictConfig) -> dict[str, Any]:
    """Returns what it wrote: the times, and the errors of all grids."""
    asked = plain(config)
    device = pick_device(asked["device"])
    run = load_run(asked["run"], which=asked["checkpoint"], weights=asked["weights"], device=device)
    check_paints(run.record, run.checkpoint)
    chosen = run.sampler(build(asked["sampler"]) if asked.get("sampler") else None)
    sampler = replace(chosen, num_steps=asked["num_steps"], times=None)
    if asked["pictures"] < 1:
        raise UserError(f"pictures={asked['pictures']} is too small: the grid is fitted to that many, 8 will do")
    prompts = prompts_of(asked["prompts"], run)
    prompts = [prompts[row % len(prompts)] for row in range(asked["pictures"])]
    scale, guidance = run.guidance_scale(asked["guidance_scale"]), run.guidance()
    model, fine = run.model, asked["fine_steps"]
    denoiser = model.denoiser(model.encode_captions(prompts), guidance_scale=scale, **guidance)

    def noise(first: int) -> Tensor:
        seeds = [first + row for row in range(len(prompts))]
        return NoiseSource(seeds, model.latent_shape, device=model.device).x_T()

    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("searching", total=asked["num_steps"])
        times = search_times(
            denoiser,
            noise(asked["seed"]),
            sampler=sampler,
            num_steps=asked["num_steps"],
            fine_steps=fine,
            on_step=lambda _: progress.advance(bar),
        )
    fresh = noise(asked["seed"] + len(prompts))
    errors = errors_of_grids(denoiser, fresh, sampler=sampler, times=times, fine_steps=fine)
    result = {
        "sampler": sampler.name,
        "times": times,
        "rms_error_on_other_noise": errors,
        "guidance_scale": scale,
        "guidance": guidance,
        "checkpoint": run.checkpoint_id,
        "weights": run.weights,
    }
    out = Path(asked["out"] or run.path / f"times_{sampler.name}_{asked['num_steps']}.json")
    with written(out) as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n")
    _tell(errors, out, sampler=sampler.name, times=times)
    return result


def _tell(errors: dict[str, float], out: Path, *, sampler: str, times: list[float]) -> None:
    for grid, error in errors.items():
        log.info("%-8s  error %.4f", grid, error)
    if errors["searched"] > min(errors.values()):
        log.warning("here a common spacing does better than the searched grid; give it more pictures or fine_steps")
    log.info("written to %s", out)
    log.info("use it as: sampler=%s 'sampler.times=[%s]'", sampler, ",".join(f"{t:.5g}" for t in times))


main = command("schedule_search")(schedule_search)

if __name__ == "__main__":
    main()
