"""Measure a run: `python -m diffusion_art.evaluate run=logs/quickstart metrics=[caption_following,fd,kid,val_x0]`.

    caption_following  how often it paints the style and the two colours asked for (runs on the painter's pictures)
    fd, kid            how far its pictures are from real ones of the same captions, in features of a network
    val_x0             its squared error in x_0 at fixed log SNRs: comparable between recipes

Prints the figures and writes them to `evaluation.json` in the run folder; every prompt behind caption following
goes to `caption_following.json`. `judge=train` trains the judge.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("train")

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
from diffusion_art.devices import pick_device
from diffusion_art.diffusion.guidance import tempering
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.errors import UserError
from diffusion_art.evaluation.caption_following import (
    Generate,
    caption_following,
    painter_captions,
    save_json,
    summary,
)
from diffusion_art.evaluation.distances import check_count, frechet_distance, kernel_distance, least_count
from diffusion_art.evaluation.features import Features, load_features
from diffusion_art.evaluation.reference import Reference, collected, painted
from diffusion_art.evaluation.train_judge import train_judge
from diffusion_art.evaluation.x0_error import x0_error
from diffusion_art.models.text_to_image import TextToImage

log = logging.getLogger(__name__)

METRICS = ("caption_following", "fd", "kid", "val_x0")
LEAST = {"count": 1, "held_out_count": 0, "batch_size": 1, "seed": 0, "pictures": 2, "val_pictures": 1}


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Returns what it wrote: the scores of the judge, or those of the run."""
    asked = _checked(plain(config))
    if asked["judge"] == "train":
        return train_judge()
    wanted, device = asked["metrics"], pick_device(asked["device"])
    features = load_features(asked["features"], device=device) if {"fd", "kid"} & set(wanted) else None
    if "fd" in wanted and features is not None:
        check_count(asked["pictures"], features.dim)
    path = find_checkpoint(asked["run"])
    checkpoint = read_checkpoint(path)
    trained: dict[str, Any] = checkpoint[KEY]["config"]
    if "caption_following" in wanted and _painter_of(trained) is None:
        _leave_out_caption_following(wanted)
    model = model_of(checkpoint, weights=asked["weights"], origin=path).to(device)
    sampler: Sampler = build(asked.get("sampler") or trained["sampler"])
    if asked["num_steps"] is not None:
        sampler = sampler.in_steps(asked["num_steps"])
    guidance = tempering(**(trained.get("guidance") or {}))
    scale = asked["guidance_scale"] if asked["guidance_scale"] is not None else trained["guidance_scale"]
    generate = partial(paint, model, sampler=sampler, guidance_scale=scale, **guidance)
    story = {
        "checkpoint": checkpoint_id(path),
        "weights": asked["weights"],
        "guidance_scale": scale,
        "guidance": guidance,
        "sampler": sampler.describe(),
    }
    folder = Path(asked["out"]) if asked["out"] else _run_folder(path)
    result: dict[str, Any] = dict(story)
    if "caption_following" in wanted:
        following = caption_following(
            generate,
            count=asked["count"],
            held_out_count=asked["held_out_count"],
            seed=asked["seed"],
            batch_size=asked["batch_size"],
            exclude=painter_captions(build(_painter_of(trained) or {})),
        )
        save_json(following | story, folder / "caption_following.json")
        log.info("%s", summary(following))
        result["caption_following"] = {key: value for key, value in following.items() if key != "rows"}
    if features is not None:
        least = least_count(features.dim) if "fd" in wanted else 0
        real = real_pictures(trained, asked, count=asked["pictures"], fd_least=least)
        result |= distances(
            generate, real, features, metrics=wanted, seed=asked["seed"], batch_size=asked["batch_size"]
        )
    if "val_x0" in wanted:
        real = real_pictures(trained, asked, count=asked["val_pictures"], validation=True)
        result["val_x0"] = x0_error(model, real.images, real.captions, batch_size=asked["batch_size"])
        log.info("val_x0: %.5f on %d pictures", result["val_x0"]["val_x0"], len(real))
    save_json(result, folder / "evaluation.json")
    log.info("written to %s", folder / "evaluation.json")
    return result


def _checked(asked: dict[str, Any]) -> dict[str, Any]:
    if asked["judge"] not in ("use", "train"):
        raise UserError(f"judge={asked['judge']} is neither use nor train.")
    if asked["judge"] == "use" and asked["run"] is None:
        raise UserError("there is no run to evaluate: give one, as in run=logs/quickstart.")
    asked["metrics"] = [asked["metrics"]] if isinstance(asked["metrics"], str) else list(asked["metrics"])
    if unknown := [metric for metric in asked["metrics"] if metric not in METRICS]:
        raise UserError(f"metrics={unknown} is unknown: choose from {', '.join(METRICS)}.")
    for name, least in LEAST.items():
        if asked[name] < least:
            raise UserError(f"{name}={asked[name]} is too small: give at least {least}.")
    return asked


def paint(model: TextToImage, captions: list[str], seeds: list[int], **how: Any) -> Tensor:
    """One batch of pictures, as `caption_following` asks for them."""
    return model.generate(captions, seeds=seeds, batch_size=len(captions), **how)


def distances(
    generate: Generate, real: Reference, features: Features, *, metrics: list[str], seed: int, batch_size: int
) -> dict[str, Any]:
    """{"fd": ..., "kid": ...}, those asked for, between real pictures and ones painted from their captions."""
    seeds, fake = [1_000_000 * seed + row for row in range(len(real))], []
    for start in range(0, len(real), batch_size):
        rows = slice(start, start + batch_size)
        fake.append(generate(real.captions[rows], seeds[rows]))
    seen = features(real.images), features(torch.cat(fake))
    shared = {"features": features.name, "pictures": len(real)}
    result: dict[str, Any] = {}
    if "fd" in metrics:
        result["fd"] = {"fd": frechet_distance(*seen), **shared}
        log.info("fd: %.3f (%s, %d pictures)", result["fd"]["fd"], features.name, len(real))
    if "kid" in metrics:
        size = min(256, len(real))
        mean, deviation = kernel_distance(*seen, subset_size=size)
        result["kid"] = {"kid": mean, "deviation": deviation, "subset_size": size, **shared}
        log.info("kid: %.5f +- %.5f (%s, %d pictures)", mean, deviation, features.name, len(real))
    return result


def real_pictures(
    trained: Mapping[str, Any], asked: Mapping[str, Any], *, count: int, fd_least: int = 0, validation: bool = False
) -> Reference:
    """Fresh paintings for a run on the painter's; else the run's own pictures: what it trained on, as is usual for
    distances, or for `validation` those it kept aside.

    Raises:
        UserError: there are fewer than `count`, than `fd_least`, or none that were kept aside.
    """
    data = dict(trained.get("data") or {})
    if _painter_of(trained):
        return painted(count, image_size_px=trained["model"]["image_size_px"], seed=int(validation))
    if asked["real"] is not None:
        data |= {"path": asked["real"], "source": None}
    if not data.get("path"):
        raise UserError("this run read its pictures from a server: give real=FOLDER of shards to compare with.")
    from diffusion_art.train import build_datamodule  # brings Lightning along

    data |= {"url": "shards", "num_workers": 0, "augmentation": None, "codec": "jpeg", "val_samples": count}
    paths = trained.get("paths") or {"data_dir": "data"}
    module = build_datamodule({"data": data, "paths": paths})
    module.prepare_data()
    module.setup()
    there = module.info.splits.get("val" if validation else "train", 0)
    if validation:
        _check_kept(there)
        count = min(count, there)
    else:
        _check_there(there, count, fd_least)
    loader = module.val_dataloader() if validation else module.train_dataloader()
    return collected((module.on_after_batch_transfer(batch, 0) for batch in loader), count)


def _check_kept(there: int) -> None:
    if there == 0:
        raise UserError(
            "val_x0 is measured on pictures kept for validation, and this data has none. Name other shards with "
            "real=FOLDER, or leave val_x0 out: 'metrics=[kid]'."
        )


def _check_there(there: int, count: int, fd_least: int) -> None:
    if there < fd_least:
        raise UserError(
            f"fd takes at least {fd_least:,} real pictures, and there are {there:,}. Ask for kid in its place, which "
            f"few pictures do not bias: 'metrics=[kid]' pictures={there}."
        )
    if there < count:
        raise UserError(f"there are {there:,} real pictures, and {count:,} were asked for: give pictures={there}.")


def _leave_out_caption_following(wanted: list[str]) -> None:
    """Take it off the list, and say so. UserError where nothing else is on it."""
    told = (
        "caption_following asks for the painter's styles and colours, and this run was not trained on the painter's "
        "pictures"
    )
    wanted.remove("caption_following")
    if not wanted:
        raise UserError(f"{told}. Measure others: 'metrics=[kid,val_x0]'.")
    log.warning("%s: it is left out", told)


def _painter_of(trained: Mapping[str, Any]) -> dict[str, Any] | None:
    source = (trained.get("data") or {}).get("source") or {}
    return source if str(source.get("_target_", "")).endswith(".Painter") else None


def _run_folder(checkpoint: Path) -> Path:
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


main = command("evaluate")(evaluate)

if __name__ == "__main__":
    main()
