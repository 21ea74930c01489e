"""What the stages will take: time, disk and money, from a measurement of a few steps on this machine.

A training step of a picture costs three forward passes of the network; painting one costs a pass for each of the
sampler's steps, twice with guidance; validation costs one. All are told in trained pictures, whose rate was measured.
"""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.sources.detect import BUILDING_FOLDER
from diffusion_art.stages.plan import Training
from diffusion_art.units import counted, duration, size

log = logging.getLogger(__name__)

DOWNLOAD_BYTES_PER_S = 20e6  # assumed
PREPARED_PER_S = 970.0  # pictures a core: half of what benchmarks/prepare.py measured with two
BYTES_PER_PIXEL = 0.6  # of a JPEG of quality 92, rounded up
FORWARD = 1 / 3  # of a training step's cost
GUIDED = 2.0  # network calls of a guided step
SHARES = ("at 25%", "at 50%")  # of an H100's peak, the rows of benchmarks/paper.py


@dataclass(frozen=True)
class Measured:
    """Of the measurement: trained pictures a second after the first steps, and the size of a checkpoint."""

    images_per_s: float
    checkpoint_bytes: int

    @classmethod
    def of(cls, folder: Path) -> Measured:
        """Of the measurement's run, below `folder`. UserError where it left nothing to read."""
        files = sorted(folder.rglob("metrics.csv"))
        checkpoints = [path for path in folder.rglob("*.ckpt") if not path.is_symlink()]
        rates = []
        for file in files:
            with file.open(newline="") as rows:
                rates += [float(value) for row in csv.DictReader(rows) if (value := row.get("time/images_per_s"))]
        if not rates or not checkpoints:
            raise UserError(f"the measurement left no rate in {folder}; remove that folder and start again.")
        return cls(rates[-1], max(path.stat().st_size for path in checkpoints))


@dataclass(frozen=True)
class Line:
    """One row of the estimate: a stage, its seconds and bytes (None: unknown), what tells so, and where it writes."""

    stage: str
    seconds: float | None
    bytes: float | None
    says: str
    place: Path


def lines(
    training: Training,
    measured: Measured,
    *,
    pictures: int | None,
    download_bytes: float,
    evaluated: int,
    cores: int,
    makes: Mapping[str, Path],
) -> list[Line]:
    """The rows of all stages but the last, which runs until it is stopped.

    `evaluated` pictures are painted by the evaluation. `makes` is what each stage leaves, and where the download goes.
    """
    cache, sent = makes["download"], download_bytes / DOWNLOAD_BYTES_PER_S
    rate, checkpoint = measured.images_per_s, measured.checkpoint_bytes
    step = FORWARD * GUIDED * training.sampler_steps
    trained = None if training.steps is None else training.steps * training.pictures_per_step
    extra = training.painted * step + FORWARD * training.validated
    return [
        Line("download", sent, download_bytes, "at 20 MB/s, assumed", cache),
        _shards(makes["shards"], pictures, training.image_size_px, cores),
        Line(
            "train",
            None if trained is None else (trained + extra) / rate,
            _lacking(training.kept_checkpoints * checkpoint, makes["train"]),
            f"{told_steps(training)}, {rate:,.1f} a second measured",
            makes["train"],
        ),
        Line("evaluate", evaluated * step / rate, 0, f"{counted(evaluated)} painted", makes["evaluate"]),
        Line("export", 0, _lacking(checkpoint, makes["export"]), "no larger than a checkpoint", makes["export"]),
    ]


def _shards(manifest: Path, pictures: int | None, size_px: int, cores: int) -> Line:
    if manifest.is_file():
        return Line("shards", 0, 0, "built already", manifest)
    if pictures is None:
        return Line("shards", None, None, "the source tells its pictures only when it is read", manifest)
    needed = _lacking(pictures * size_px**2 * BYTES_PER_PIXEL, manifest.parent / BUILDING_FOLDER)
    return Line("shards", pictures / (PREPARED_PER_S * cores), needed, counted(pictures), manifest)


def _lacking(needed: float, there: Path) -> float:
    """Of the bytes that are needed those that are not there yet, in a file or a folder."""
    files = [there, *there.rglob("*")] if there.exists() else []
    return max(0.0, needed - sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink()))


def told_steps(training: Training) -> str:
    """The length of a training as people read it."""
    steps = "unknown steps" if training.steps is None else counted(training.steps, "step")
    return f"{steps} of {counted(training.pictures_per_step)}"


def on_paper(experiment: str, trained: int) -> list[tuple[str, float]]:
    """(share of an H100's peak, hours) by benchmarks/paper.py, where this is a checkout and it counted `experiment`."""
    path = config_dir().parent / "benchmarks" / "results" / "paper.json"
    rows = json.loads(path.read_text("utf-8")) if path.is_file() else []
    rates = {row["measure"]: row["ours"] for row in rows if f"experiment={experiment} " in f"{row.get('command')} "}
    found = [(share, name) for share in SHARES for name in rates if name.startswith(share) and "images/s" in name]
    return [(share, trained / rates[name] / 3600) for share, name in found]


def tell(rows: list[Line], *, price_per_hour: float, paper: list[tuple[str, float]]) -> None:
    """The table, its sum in money, and the hours of an H100 on paper."""
    table = Table("stage", "time", "disk", "from", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(row.stage, _known(row.seconds, duration), _known(row.bytes, size), row.says)
    seconds, disk = sum(row.seconds or 0 for row in rows), sum(row.bytes or 0 for row in rows)
    whole = all(None not in (row.seconds, row.bytes) for row in rows)
    table.add_row("all" if whole else "all known", duration(seconds), size(disk), "", style="bold")
    Console(width=120).print(table)
    money = seconds / 3600 * price_per_hour
    log.info("US$ %s at %.2f an hour (price_per_hour)", f"{money:,.2f}", price_per_hour)
    if paper:
        hours = " to ".join(f"{hours:.2g}" for _, hours in reversed(paper))
        log.info("the training alone on an H100, on paper (benchmarks/paper.py): %s hours", hours)


def _known(value: float | None, unit: Callable[[float], str]) -> str:
    return "unknown" if value is None else unit(value)


def check_disk(rows: list[Line]) -> None:
    """UserError where less is free on a disk than the stages will write there."""
    disks: dict[int, list[tuple[float, Path]]] = defaultdict(list)
    for row in rows:
        folder = next(path for path in (row.place.absolute(), *row.place.absolute().parents) if path.is_dir())
        disks[folder.stat().st_dev].append((row.bytes or 0, folder))
    for wanted in disks.values():
        needed, folder = sum(count for count, _ in wanted), max(wanted)[1]
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(f"{size(needed)} are needed and {size(free)} are free in {folder}. Make room there first.")
