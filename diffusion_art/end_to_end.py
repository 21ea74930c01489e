"""A collection into a served model, stage by stage: `python -m diffusion_art.end_to_end`, or `make wikiart`.

Downloads the collection, builds shards, counts styles and artists, trains, evaluates, exports and serves. Before it
starts it says what that takes: time, disk and money, from a measurement of a few steps on this machine. Each stage
leaves a mark, so that the same command goes on where it was stopped.

    python -m diffusion_art.end_to_end training=openclipart source=parquet source.path=FOLDER
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffusion_art.cli import command
from diffusion_art.config import build, config_dir, plain
from diffusion_art.errors import UserError
from diffusion_art.extras import check_extra
from diffusion_art.files import key_of
from diffusion_art.hydra_errors import no_choice
from diffusion_art.overrides import given
from diffusion_art.shards.build.build import default_out
from diffusion_art.stages.marks import Marks, Stage, run
from diffusion_art.stages.measure import find, tell_estimate
from diffusion_art.stages.plan import NAMES, Training, composed, stages, training_words

log = logging.getLogger(__name__)


@command("end_to_end")
def main(config: DictConfig) -> None:
    """Estimate, ask where somebody can answer, then do what is not done yet."""
    asked = plain(config)
    _check(asked)
    folder = Path(asked["folder"])
    collection = find(asked["source"])
    words = training_words(asked)
    training = Training.of(composed(words), pictures=collection.pictures, typed=[key_of(word) for word in words])
    shards = Path(asked["shards"] or default_out(collection.name, image_size_px=training.image_size_px))
    todo = stages(asked, training, folder, source=_source_words(), shards=shards)
    tell_estimate(asked, training, collection, todo)
    if asked["until"] == "estimate" or not _agreed(asked):
        return
    if collection.download_bytes:
        log.info("downloading %s into the hub's cache", asked["source"]["repo_id"])
    build(asked["source"])  # of the hub: downloads what is not here, and goes on with what is
    _run(asked, todo, folder)


def _check(asked: dict[str, Any]) -> None:
    check_extra("train")
    known = ("estimate", *NAMES)
    if asked["until"] not in known:
        raise UserError(f"until={asked['until']} is not a stage: choose one of {', '.join(known)}.")
    if not (config_dir() / "experiment" / f"{asked['training']}.yaml").is_file():
        raise UserError(f"training={asked['training']}: {no_choice('experiment', str(asked['training']))}")
    if int(asked["measure"]["steps"]) < 4:
        raise UserError(f"measure.steps={asked['measure']['steps']} are too few to measure: give 4 or more.")


def _agreed(asked: dict[str, Any]) -> bool:
    """Whether to go on: asked of a person at a terminal, and of nobody else."""
    if not asked["ask"] or not sys.stdin.isatty():
        return True
    return input("Go on? [Y/n] ").strip().lower() in ("", "y", "yes")


def _source_words() -> list[str]:
    """What was typed of the source."""
    hydra = HydraConfig.get()
    typed = [word for word in given() if word.lstrip("+").startswith("source.")]
    return [f"source={hydra.runtime.choices['source']}", *typed]


def _run(asked: dict[str, Any], todo: list[Stage], folder: Path) -> None:
    marks = Marks(folder / "marks", todo)
    for stage in todo[: NAMES.index(asked["until"]) + 1]:
        if stage.name == "serve":
            log.info("stage serve: %s", stage.line)
            run(stage)  # until it is stopped
        else:
            marks.run(stage, run)


if __name__ == "__main__":
    main()
