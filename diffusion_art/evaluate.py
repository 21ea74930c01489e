"""Measure a run: `python -m diffusion_art.evaluate run=logs/quickstart`.

Prints how often the model paints the style and the two colours it is asked for, and writes the figures with
every prompt behind them to `caption_following.json` in the run folder. `judge=train` trains the judge.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from diffusion_art.checkpoints import KEY, checkpoint_id, find_checkpoint, model_of, read_checkpoint
from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.diffusion.guidance import tempering
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.errors import UserError
from diffusion_art.evaluation.caption_following import (
    caption_following,
    painter_captions,
    save_caption_following,
    summary,
)
from diffusion_art.evaluation.train_judge import train_judge
from diffusion_art.models.text_to_image import TextToImage

log = logging.getLogger(__name__)

RESULT_FILE = "caption_following.json"


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Returns what it wrote: the scores of the judge, or those of the run."""
    asked = plain(config)
    if asked["judge"] not in ("use", "train"):
        raise UserError(f"judge={asked['judge']} is neither use nor train.")
    if asked["judge"] == "train":
        return train_judge()
    if asked["run"] is None:
        raise UserError("there is no run to evaluate: give one, as in run=logs/quickstart.")
    for name, least in (("count", 1), ("held_out_count", 0), ("batch_size", 1), ("seed", 0)):
        if asked[name] < least:
            raise UserError(f"{name}={asked[name]} is too small: give at least {least}.")
    path = find_checkpoint(asked["run"])
    checkpoint = read_checkpoint(path)
    trained: dict[str, Any] = checkpoint[KEY]["config"]
    model = model_of(checkpoint, weights=asked["weights"], origin=path).to(_device(asked["device"]))
    sampler: Sampler = build(asked.get("sampler") or trained["sampler"])
    if asked["num_steps"] is not None:
        sampler = sampler.in_steps(asked["num_steps"])
    guidance = tempering(**(trained.get("guidance") or {}))
    scale = asked["guidance_scale"] if asked["guidance_scale"] is not None else trained["guidance_scale"]
    result = caption_following(
        partial(paint, model, sampler=sampler, guidance_scale=scale, **guidance),
        count=asked["count"],
        held_out_count=asked["held_out_count"],
        seed=asked["seed"],
        batch_size=asked["batch_size"],
        exclude=training_captions(trained),
    )
    result |= {
        "checkpoint": checkpoint_id(path),
        "weights": asked["weights"],
        "guidance_scale": scale,
        "guidance": guidance,
        "sampler": sampler.describe(),
    }
    folder = Path(asked["out"]) if asked["out"] else _run_folder(path)
    save_caption_following(result, folder / RESULT_FILE)
    log.info("%s", summary(result))
    log.info("written to %s", folder / RESULT_FILE)
    return result


def paint(model: TextToImage, captions: list[str], seeds: list[int], **how: Any) -> Tensor:
    """One batch of pictures, as `caption_following` asks for them."""
    return model.generate(captions, seeds=seeds, batch_size=len(captions), **how)


def training_captions(trained: Mapping[str, Any]) -> frozenset[str] | None:
    """The captions a run was trained on, where its data came from the painter; else None, with a warning."""
    source = (trained.get("data") or {}).get("source") or {}
    if str(source.get("_target_", "")).endswith(".Painter"):
        return painter_captions(build(source))
    log.warning("this run was not trained on the painter's pictures: its captions may mean little to it")
    return None


def _run_folder(checkpoint: Path) -> Path:
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def _device(wanted: str) -> torch.device:
    if wanted != "auto":
        try:
            return torch.device(wanted)
        except RuntimeError as error:
            raise UserError(f"device={wanted} is no device: choose auto, cpu, cuda or mps.") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


main = command("evaluate")(evaluate)

if __name__ == "__main__":
    main()
