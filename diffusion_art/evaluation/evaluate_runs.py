"""One run measured, or several compared: every point of a sweep, and the files and pages that tell of them."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from diffusion_art.checkpoints import find_checkpoint, find_run, read_plain
from diffusion_art.config import build, config_dir, plain
from diffusion_art.errors import UserError
from diffusion_art.evaluation.caption_following import save_json
from diffusion_art.evaluation.curves import folder_name, label, points, swept
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.measure import measured
from diffusion_art.evaluation.metrics import Metric, metrics_of
from diffusion_art.evaluation.metrics.metric import AgainstReal
from diffusion_art.evaluation.model_card import card_of, write_card
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.report import Entry, comparison_text, report
from diffusion_art.evaluation.subject import Subject, Work
from diffusion_art.files import without_home
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.record import Record
from diffusion_art.reports.document import page, write_part
from diffusion_art.runs import Run, load_run

log = logging.getLogger(__name__)

DEFAULT = "caption_following"  # the metric of the painter's pictures, where none is named


@dataclass(frozen=True)
class Opened:
    """What the choice of metrics depends on: a run's data, and its model, which is read anew each time: all of several
    runs need not fit into memory at once.
    """

    path: str
    model: Callable[[], TextToImage]
    data: RunData


def opened(paths: Sequence[str], asked: Mapping[str, Any]) -> list[Opened]:
    """The runs at `paths`, each at the first checkpoint that is asked for."""
    which = asked["checkpoint"] if isinstance(asked["checkpoint"], str) else asked["checkpoint"][0]
    found = []
    for path in paths:
        home = path if isinstance(asked["checkpoint"], str) and which != "all" else find_run(path)
        file = find_checkpoint(home, which="last" if which == "all" else which)
        config = Record.of(read_plain(file), origin=file).config  # without weights, which are read when it paints
        found.append(Opened(path, partial(_model, file), RunData(config, real=asked["real"])))
    return found


def _model(file: Path) -> TextToImage:
    return load_run(file).model


def names_that_fit(runs: Sequence[Opened], nodes: Mapping[str, Any], *, networks: Networks) -> list[str]:
    """The metrics where none were named: DEFAULT of the painter's pictures, of others what they allow.

    Raises:
        UserError: a run's data are not at hand.
    """
    if all(run.data.painter is not None for run in runs):
        return [DEFAULT]
    left_out = f"{DEFAULT}, which is for the painter's pictures"
    for run in runs:
        run.data.real()
    metric = metrics_of(nodes, ["val_x0"])["val_x0"]
    try:
        _check([metric], runs, networks)
    except UserError as error:
        log.info("measuring kid, without %s, and without val_x0: %s", left_out, error)
        return ["kid"]
    log.info("measuring kid and val_x0, without %s", left_out)
    return ["kid", "val_x0"]


def pictures_there(runs: Sequence[Opened], metrics: Mapping[str, Metric]) -> int | None:
    """How many real pictures the runs have, where that is less than `metrics` ask for; else None."""
    compared = [metric for metric in metrics.values() if isinstance(metric, AgainstReal)]
    asked = max((metric.pictures for metric in compared), default=0)
    there = [run.data.real().there for run in runs if asked and run.data.has_training_pictures]
    fewest = min((count for count in there if count is not None), default=asked)
    return fewest if 0 < fewest < asked else None


def check_pictures(runs: Sequence[Opened], metrics: Mapping[str, Metric], *, networks: Networks) -> None:
    """Before anything is painted for any of the runs: do the data of each hold as many pictures as are asked for?

    Raises:
        UserError: they do not, or the model is none for a metric; of several runs it names the one.
    """
    _check(list(metrics.values()), runs, networks)


def _check(metrics: Sequence[Metric], runs: Sequence[Opened], networks: Networks) -> None:
    for run in runs:
        try:
            for metric in metrics:
                metric.check_model(run.model)
                metric.check_data(run.data, networks)
        except UserError as error:
            raise UserError(f"{run.path}: {error}" if len(runs) > 1 else str(error)) from error


def evaluate_run(
    path: str,
    metrics: Mapping[str, Metric],
    asked: dict[str, Any],
    *,
    networks: Networks,
    typed: str,
    out: Path | None = None,
) -> Entry:
    """Measure a run at every point of the sweep, if there is one, and write its results.

    `asked` is what `conf/evaluate.yaml` holds, `typed` the command that asks it.
    """
    axes = swept(asked | {"checkpoint": _checkpoints(path, asked["checkpoint"])})
    home = find_run(path) if "checkpoint" in axes else path
    open_run = partial(load_run, home, weights=asked["weights"], device=str(networks.device))
    which = axes.get("checkpoint", [asked["checkpoint"]])
    run = open_run(which=which[0])
    folder = out or (Path(asked["out"]) if asked["out"] else run.path)
    entries, works = [], []
    for point in points(axes):
        if (wanted := point.get("checkpoint", which[0])) != which[0]:
            run, which = open_run(which=wanted), [wanted]
        place = folder / "evaluation" / folder_name(point) if axes else folder
        subject = subject_of(run, asked | _settings(point), networks=networks, folder=place, keep=folder)
        if axes:
            log.info("%s", label(point))
        result = measured(
            subject, metrics, asked["metric"], slices=asked["slices"], keep_pictures=asked["keep_pictures"]
        )
        entries.append(Entry(label(point) or run.name, result | ({"at": point} if axes else {}), place))
        works.append(subject.work)
    result = (
        {"run": run.name, "swept": axes, "points": [entry.result for entry in entries]} if axes else entries[0].result
    )
    save_json(dict(result), folder / "evaluation.json")
    _write_pages(run, path, entries, metrics, axes, folder=folder, typed=typed)
    for work in works:
        work.done(keep_pictures=asked["keep_pictures"])
    return Entry(run.name, result, folder)


def subject_of(run: Run, asked: dict[str, Any], *, networks: Networks, folder: Path, keep: Path) -> Subject:
    """The run's model, as it paints with these settings, and its data. What is finished is kept in `keep`."""
    chosen = build(asked["sampler"]) if asked.get("sampler") else None
    sampler = run.sampler(chosen, num_steps=asked["num_steps"])
    scale, guidance = run.guidance_scale(asked["guidance_scale"]), run.guidance()
    story = {
        "checkpoint": run.checkpoint_id,
        "weights": run.weights,
        "guidance_scale": scale,
        "guidance": guidance,
        "sampler": sampler.describe(),
    }
    told = story | {name: asked[name] for name in ("seed", "batch_size", "real", "slices")}
    return Subject(
        model=run.model,
        generate=partial(paint, run.model, sampler=sampler, guidance_scale=scale, **guidance),
        data=RunData(run.config, real=asked["real"]),
        networks=networks,
        folder=folder,
        story=story,
        seed=asked["seed"],
        batch_size=asked["batch_size"],
        work=Work(keep, told),
    )


def paint(model: TextToImage, captions: list[str], seeds: list[int], **how: Any) -> Tensor:
    """One batch of pictures."""
    return model.generate(captions, seeds=seeds, batch_size=len(captions), **how)


def evaluate_runs(
    paths: Sequence[str], metrics: Mapping[str, Metric], asked: dict[str, Any], *, networks: Networks, typed: str
) -> dict[str, Any]:
    """Measure every run by itself, and write one table of all."""
    out = Path(asked["out"]) if asked["out"] else None
    entries: list[Entry] = []
    for number, path in enumerate(paths):
        log.info("%s", path)
        own = out / f"{number:02d}" if out else _folder_of(path)
        entry = evaluate_run(path, metrics, asked, networks=networks, typed=typed, out=own)
        entries.append(replace(entry, label=_label_of(path, entry.label, taken=[one.label for one in entries])))
    folder = out or Path(os.path.commonpath([entry.folder.parent.resolve() for entry in entries]))
    flat = [
        Entry(f"{entry.label}, {label(part['at'])}", part, entry.folder / "evaluation" / folder_name(part["at"]))
        for entry in entries
        for part in entry.result.get("points", [])
    ] or entries
    part = report(flat, metrics, command=typed, about={"runs": f"{len(entries)} runs"})
    result = {"runs": {entry.label: entry.result for entry in entries}}
    save_json(result, folder / "comparison.json")
    (folder / "comparison.html").write_text(page("Runs compared", {"evaluation": part}), encoding="utf-8")
    log.info("%s\nwritten to %s", comparison_text(flat, metrics), folder / "comparison.html")
    return result


def _folder_of(path: str) -> Path | None:
    """Where the results of one of several files go, which may lie in one folder; None: into its run folder."""
    file = Path(path).expanduser()
    if not file.is_file():
        return None
    home = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    return home / "evaluation" / file.stem


def _label_of(path: str, label: str, *, taken: list[str]) -> str:
    """What one of several is called: a checkpoint of a run by its own name too; where that is taken, by its path."""
    file = Path(path).expanduser()
    if file.is_file() and file.parent.name == "checkpoints":
        label = f"{label} {file.stem}"
    return f"{label} ({without_home(path)})" if label in taken else label


def _settings(point: dict[str, Any]) -> dict[str, Any]:
    """A point's settings as those of a single evaluation: a sampler by name becomes that of its file."""
    if "sampler" not in point:
        return point
    return point | {"sampler": plain(OmegaConf.load(config_dir() / "sampler" / f"{point['sampler']}.yaml"))}


def _checkpoints(path: str, asked: Any) -> Any:
    """`all` as the names of the run's checkpoints by step; anything else as it was given."""
    if asked != "all":
        return asked
    if not (names := load_run(find_run(path)).checkpoints):
        raise UserError(f"{path} has no checkpoints named by their step: give checkpoint=last.")
    return names


# ---------------------------------------------------------------------- pages


def _write_pages(
    run: Run,
    path: str,
    entries: list[Entry],
    metrics: Mapping[str, Metric],
    axes: dict[str, Any],
    *,
    folder: Path,
    typed: str,
) -> None:
    """The evaluation part of `report.html`, and of a single point `MODEL_CARD.md`."""
    about = {
        "size": f"{run.model.image_size_px} px",
        "step": f"{run.step:,} training steps",
        "date": f"measured on {datetime.date.today().isoformat()}",
    }
    part = report(entries, metrics, command=typed, about=about, axes=axes)
    write_part(folder / "report.html", "evaluation", part, title=run.name)
    log.info("written to %s and %s", folder / "evaluation.json", folder / "report.html")
    if axes:
        return
    text = card_of(run, entries[0].result, metrics, called=path, folder=folder)
    if not write_card(folder / "MODEL_CARD.md", without_home(text)):
        log.info("%s is yours, and was left as it is", folder / "MODEL_CARD.md")
