"""A collection into a served model, stage by stage: `python -m diffusion_art.end_to_end`, or `make wikiart`.

Downloads the collection, builds shards, counts styles and artists, trains, evaluates, exports and serves. Before it
starts it says what that takes: time, disk and money, from a measurement of a few steps on this machine. Each stage
leaves a mark, so that the same command goes on where it was stopped.

    python -m diffusion_art.end_to_end training=openclipart source=parquet source.path=FOLDER
"""

from __future__ import annotations

import logging
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from diffusion_art.cli import command
from diffusion_art.config import build, plain
from diffusion_art.errors import UserError
from diffusion_art.extras import check_extra
from diffusion_art.files import key_of
from diffusion_art.shards.build.build import default_out
from diffusion_art.shards.build.engine import usable_cores
from diffusion_art.sources.hub import JPEG_BYTES, WIKIART, WIKIART_PICTURES, cache_folder, cached, hub_bytes, name_of
from diffusion_art.stages import estimate, processes
from diffusion_art.stages.marks import Marks, Stage
from diffusion_art.stages.plan import (
    NAMES,
    Training,
    composed,
    defaults_of,
    measurement,
    stages,
    training_words,
    words_of,
)

log = logging.getLogger(__name__)

ON_CPU = 4  # pictures of a measured step where there is no GPU: the rate hardly depends on it


@dataclass(frozen=True)
class Collection:
    """Its name, how many pictures there are (None: not known yet), and the bytes to download first."""

    name: str
    pictures: int | None
    download_bytes: float


@command("end_to_end")
def main(config: DictConfig) -> None:
    """Estimate, ask where somebody can answer, then do what is not done yet."""
    asked = plain(config)
    _check(asked)
    folder = Path(asked["folder"])
    collection = _collection(asked)
    words = training_words(asked)
    training = Training.of(composed(words), pictures=collection.pictures, typed=[key_of(word) for word in words])
    shards = Path(asked["shards"] or default_out(collection.name, image_size_px=training.image_size_px))
    todo = stages(asked, training, folder, source=_source_words(), shards=shards)
    _estimate(asked, training, collection, todo)
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
    if int(asked["measure"]["steps"]) < 4:
        raise UserError(f"measure.steps={asked['measure']['steps']} are too few to measure: give 4 or more.")


def _collection(asked: dict[str, Any]) -> Collection:
    """UserError where it is neither here nor on a hub that answers."""
    source = asked["source"]
    repo = source.get("repo_id") if source.get("path") is None else None
    if repo is not None and not cached(repo, revision=source["revision"]):
        try:
            count = hub_bytes(repo, revision=source["revision"])
        except UserError as error:
            raise UserError(f"{error} With a copy of its files give source.path=FOLDER here.") from error
        name = source.get("name") or name_of(repo)
        return Collection(name, WIKIART_PICTURES if repo == WIKIART else int(count / JPEG_BYTES), count)
    here = build(source)
    return Collection(here.name, here.count, 0)


def _estimate(asked: dict[str, Any], training: Training, collection: Collection, todo: list[Stage]) -> None:
    """Measure, unless that was done with the same words, and tell."""
    folder = Path(asked["folder"])
    pictures = asked["measure"]["pictures"] or (training.pictures_per_step if _has_gpu() else ON_CPU)
    stage = measurement(asked, training, folder / "measure", pictures=pictures)
    log.info(
        "%s: %s. Measuring %d steps of %d painted pictures first, to say what that takes here.",
        asked["training"],
        estimate.told_steps(training),
        asked["measure"]["steps"],
        pictures,
    )
    Marks(folder / "marks", [stage]).run(stage, lambda stage: _measure(stage, folder / "measure"))
    rows = estimate.lines(
        training,
        estimate.Measured.of(folder / "measure"),
        pictures=collection.pictures,
        download_bytes=collection.download_bytes,
        evaluated=_evaluated(asked),
        cores=usable_cores(),
        makes={"download": cache_folder()} | {stage.name: stage.makes for stage in todo if stage.makes},
    )
    trained = (training.steps or 0) * training.pictures_per_step
    paper = estimate.on_paper(asked["training"], trained) if trained else []
    estimate.tell(rows, price_per_hour=asked["price_per_hour"], paper=paper)
    estimate.check_disk(rows)


def _measure(stage: Stage, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    processes.run(stage)


def _evaluated(asked: dict[str, Any]) -> int:
    """Pictures that the evaluation paints."""
    typed = [word.partition("=")[2] for word in words_of(asked["evaluate"]) if word.startswith("pictures=")]
    return int(typed[-1] if typed else defaults_of("evaluate")["pictures"])


def _has_gpu() -> bool:
    from diffusion_art.devices import pick_device  # here: it needs torch

    return pick_device() != "cpu"


def _agreed(asked: dict[str, Any]) -> bool:
    """Whether to go on: asked of a person at a terminal, and of nobody else."""
    if not asked["ask"] or not sys.stdin.isatty():
        return True
    return input("Go on? [Y/n] ").strip().lower() in ("", "y", "yes")


def _source_words() -> list[str]:
    """What was typed of the source."""
    hydra = HydraConfig.get()
    typed = [word for word in hydra.overrides.task if word.lstrip("+").startswith("source.")]
    return [f"source={hydra.runtime.choices['source']}", *typed]


def _run(asked: dict[str, Any], todo: list[Stage], folder: Path) -> None:
    marks = Marks(folder / "marks", todo)
    for stage in todo[: NAMES.index(asked["until"]) + 1]:
        if stage.name == "serve":
            log.info("stage serve: %s", stage.line)
            processes.run(stage)  # until it is stopped
        else:
            marks.run(stage, processes.run)


if __name__ == "__main__":
    main()
