"""Look through shards for everything that could spoil a training run, on all cores.

Of a shard folder every file is read: checksums, tar headers against the index, keys, splits, captions, metadata,
and each picture decoded (`shards.py`). Of tars without a manifest, another program's or a stranger's, every
member's header and the pictures. Nothing is unpacked, and nothing of theirs is run.
"""

from __future__ import annotations

import tarfile
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
from diffusion_art.shards.manifest import MANIFEST_FILE
from diffusion_art.shards.places import Address, ShardSpec, components_of
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.base import Item, Note, Picture
from diffusion_art.sources.pictures import BadPictureError, load_picture
from diffusion_art.sources.tars.samples import headers
from diffusion_art.sources.tars.tars import Tars
from diffusion_art.units import progress_bar

# Suffixes whose content a common reader of tars executes: unpickles, imports or hands to a shell.
CODE_SUFFIXES = frozenset(
    ("pkl", "pickle", "pyd", "pth", "pt", "ckpt", "joblib", "py", "so", "dll", "exe", "sh", "bat")
)
_SMALL_PX = 64  # pictures are decoded as `prepare` would, at no more than the cost of a thumbnail
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


# ---------------------------------------------------------------------- one tar of somebody else's


def tars_at(path: Path) -> list[Path]:
    """The tar that `path` is, or the tars in it. UserError when there are none."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("*.tar") if file.is_file()) if path.is_dir() else []
    if not found:
        raise UserError(
            f"{path} holds neither shards nor tars; name a folder that `python -m diffusion_art.prepare "
            f"source=NAME out={path}` has built, or one with .tar files in it"
        )
    return found


def lint_tar(file: Path, findings: Findings, *, pictures: bool) -> int:
    """Add what is wrong with `file` to `findings`; the number of its samples, hostile members left out."""
    try:
        keys: dict[str, int] = {}
        for member in headers(file):
            _lint_member(member, f"{file.name} {member.name}", findings)
        source = Tars(file)
        for chunk in source.chunks():
            for entry in chunk.entries:
                keys[entry.key] = keys.get(entry.key, 0) + 1
            if pictures:
                for item in source.pictures(chunk):
                    _lint_picture(item, findings)
    except UserError as error:
        findings.add("layout", file.name, str(error))
        return 0
    for key, count in keys.items():
        if count > 1:
            findings.add("key", f"{file.name} {key}", f"is the name of {count} samples")
    return sum(keys.values())


def _lint_member(member: tarfile.TarInfo, where: str, findings: Findings) -> None:
    name = member.name
    if member.issym() or member.islnk():
        findings.add("link", where, f"is a link to {member.linkname!r}")
    elif member.isdev():
        findings.add("link", where, "is a device or a pipe")
    if name.startswith(("/", "pipe:")) or ".." in name.split("/") or "\\" in name or not name.isprintable():
        findings.add("path", where, f"has the name {name!r}")
    if not CODE_SUFFIXES.isdisjoint(name.rpartition("/")[2].lower().split(".")[1:]):
        findings.add("code", where, f"has {member.size} bytes that nothing here opens")


def _lint_picture(item: Item, findings: Findings) -> None:
    if not isinstance(item, Picture):
        if not isinstance(item, Note):
            findings.add("picture", item.name, item.reason)
        return
    try:
        load_picture(item.image, image_size_px=_SMALL_PX)
    except BadPictureError as error:
        findings.add("picture", item.name, str(error))
    if "caption" in item.columns and not item.columns["caption"].strip():
        findings.add("caption", item.name, "has no caption")
