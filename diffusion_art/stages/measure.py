"""The collection that the stages start from, and a measurement of a few steps, from which they are estimated."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_art.config import build
from diffusion_art.errors import UserError
from diffusion_art.shards.build.engine import usable_cores
from diffusion_art.sources.parquet.hub import (
    JPEG_BYTES,
    WIKIART,
    WIKIART_PICTURES,
    cache_folder,
    cached,
    hub_bytes,
    name_of,
)
from diffusion_art.stages import estimate
from diffusion_art.stages.marks import Marks, Stage, run
from diffusion_art.stages.plan import Training, measurement, words_of

log = logging.getLogger(__name__)

ON_CPU = 4  # pictures of a measured step where there is no GPU: the rate hardly depends on it


def tell_estimate(asked: dict[str, Any], training: Training, collection: Collection, todo: list[Stage]) -> None:
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
    run(stage)


def _evaluated(asked: dict[str, Any]) -> int:
    """Pictures that the evaluation paints."""
    typed = [word.partition("=")[2] for word in words_of(asked["evaluate"]) if word.startswith("pictures=")]
    if typed:
        return int(typed[-1])
    from diffusion_art.evaluation.metrics.metric import AgainstReal  # here: it needs torch

    return AgainstReal.pictures


def _has_gpu() -> bool:
    from diffusion_art.devices import pick_device  # here: it needs torch

    return pick_device() != "cpu"


@dataclass(frozen=True)
class Collection:
    """Its name, how many pictures there are (None: not known yet), and the bytes to download first."""

    name: str
    pictures: int | None
    download_bytes: float


def find(source: dict[str, Any]) -> Collection:
    """That of a `source` node; nothing is downloaded. UserError where it is neither here nor on a hub that answers."""
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
