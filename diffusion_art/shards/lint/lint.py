"""Look through shards for everything that could spoil a training run, on all cores.

Of a shard folder every file is read: checksums, tar headers against the index, keys, splits, captions, metadata,
and each picture decoded (`shards.py`). Of tars without a manifest, another program's or a stranger's, every
member's header and the pictures (`tar.py`). Nothing is unpacked, and nothing of theirs is run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import MofNCompleteColumn

from diffusion_art.errors import UserError
from diffusion_art.shards.build.engine import ordered_map
from diffusion_art.shards.leaks import leaks
from diffusion_art.shards.lint.shards import Findings, lint_folder, lint_shard
from diffusion_art.shards.lint.tar import lint_tar, tars_at
from diffusion_art.shards.manifest import MANIFEST_FILE
from diffusion_art.shards.places import Address, ShardSpec, components_of
from diffusion_art.shards.reader import ShardSet
from diffusion_art.units import progress_bar

_SMALL = 2  # files; starting worker processes takes longer than these


@dataclass
class Report:
    """What was looked at, in how many seconds, and what is wrong with it."""

    findings: Findings = field(default_factory=Findings)
    files: int = 0
    samples: int = 0
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "files": self.files,
            "samples": self.samples,
            "seconds": round(self.seconds, 3),
            "errors": self.findings.errors,
            "warnings": self.findings.warnings,
            "findings": self.findings.plain(),
        }


@dataclass(frozen=True)
class _Job:
    """One file: a tar without a manifest, or (with a split) shard `number` of the folder `path`."""

    path: Path
    split: str | None = None
    number: int = 0


@dataclass(frozen=True)
class _Seen:
    """What a job found."""

    findings: Findings
    samples: int
    hashes: np.ndarray | None = None


@dataclass(frozen=True)
class _Look:
    """Callable: job -> what is wrong with its file. Runs in the worker processes."""

    pictures: bool

    def __call__(self, job: _Job) -> _Seen:
        findings = Findings()
        if job.split is None:
            return _Seen(findings, lint_tar(job.path, findings, pictures=self.pictures))
        stamp = (job.path / MANIFEST_FILE).stat().st_mtime_ns
        shards = _opened(job.path, stamp)
        hashes = lint_shard(shards, job.split, job.number, findings, pictures=self.pictures)
        return _Seen(findings, 0 if hashes is None else len(hashes), hashes)


def lint(spec: ShardSpec, *, pictures: bool = True, workers: int | None = None, progress: bool = False) -> Report:
    """Look through the shard folders, tars, and folders of tars that `spec` names.

    `pictures` False leaves out decoding, by far the longest part. `workers` None uses every core.
    UserError when a path holds neither shards nor tars.
    """
    began, report = time.monotonic(), Report()
    folders: list[ShardSet] = []
    jobs: list[_Job] = []
    for component in components_of(spec):
        if isinstance(component.path, Address):
            raise UserError(f"lint reads every byte, which it does of a folder; copy {component.path} to a disk first")
        if not (component.path / MANIFEST_FILE).exists():
            jobs += [_Job(file) for file in tars_at(component.path)]
            continue
        try:
            shards = ShardSet.open(component.path)
        except UserError as error:
            report.findings.add("folder", str(component.path), str(error))
        else:
            folders.append(shards)
            shelf = shards.manifest.shards
            jobs += [_Job(shards.folder, split, number) for split in shelf for number in range(len(shelf[split]))]
    seen = _look(jobs, _Look(pictures), workers=workers, progress=progress)
    for one in seen:
        report.findings.merge(one.findings)
    for shards in folders:
        lint_folder(shards, _hashes_of(shards, jobs, seen), report.findings)
    for held_out, shown, keys in leaks(folders):
        what = f"{len(keys)} pictures of its val lie in train of {shown.folder.name}, such as {int(keys[0]):016x}"
        report.findings.add("leak", held_out.folder.name, what, count=len(keys))
    report.files, report.samples = len(jobs), sum(one.samples for one in seen)
    report.seconds = time.monotonic() - began
    return report


def _look(jobs: Sequence[_Job], look: _Look, *, workers: int | None, progress: bool) -> list[_Seen]:
    seen = []
    with progress_bar(progress, MofNCompleteColumn()) as bar:
        task = bar.add_task("files", total=len(jobs))
        for one in ordered_map(look, jobs, workers=1 if len(jobs) <= _SMALL else workers):
            seen.append(one)
            bar.advance(task)
    return seen


def _hashes_of(shards: ShardSet, jobs: Sequence[_Job], seen: Sequence[_Seen]) -> dict[str, np.ndarray]:
    """The pictures' hashes of a folder by split, in the order of the index; unreadable shards are left out."""
    found: dict[str, list[np.ndarray]] = {split: [np.empty(0, np.uint64)] for split in shards.splits}
    for job, one in zip(jobs, seen, strict=True):
        if job.path == shards.folder and job.split is not None and one.hashes is not None:
            found[job.split].append(one.hashes)
    return {split: np.concatenate(parts) for split, parts in found.items()}


@lru_cache(maxsize=8)
def _opened(folder: Path, _stamp: int) -> ShardSet:
    """A folder, opened once in each process, and anew when its manifest was replaced."""
    return ShardSet.open(folder)
