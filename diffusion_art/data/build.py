"""A source of pictures -> a folder of shards with its manifest.

Deterministic: the same source and settings give the same bytes, on any number of cores, also when the build
was killed and run again on the way.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffusion_art import __version__
from diffusion_art.data.encode import Encoded, Encoder, split_of
from diffusion_art.data.out_folder import OutFolder
from diffusion_art.data.pool import WorkerDiedError, ordered_map
from diffusion_art.data.spool import Spool
from diffusion_art.data.tally import BAD_PICTURES_FILE, Tally
from diffusion_art.errors import UserError
from diffusion_art.sources.base import BadPicture, Source
from diffusion_art.sources.detect import BUILDING_FOLDER, open_source
from diffusion_art.sources.pictures import check_fit
from diffusion_art.streaming.manifest import MANIFEST_FILE, Manifest
from diffusion_art.streaming.shards import ShardWriter, write_manifest

SPLITS = ("train", "val")
_RANGES: dict[str, tuple[float, float]] = {
    "image_size_px": (4, 4096),
    "jpeg_quality": (1, 100),
    "val_fraction": (0.0, 0.9),
    "limit": (1, math.inf),
    "workers": (1, math.inf),
    "max_bad": (0, math.inf),
}
_IN_PROCESS_UP_TO = 64  # pictures; starting worker processes takes longer than these


def build_shards(
    source: Source,
    out: str | Path,
    *,
    image_size_px: int,
    fit: str = "crop",
    jpeg_quality: int = 92,
    val_fraction: float = 0.05,
    caption_template: str | None = None,
    limit: int | None = None,
    workers: int | None = None,
    max_bad: int = 100,
    overwrite: bool = False,
    progress: bool = True,
) -> Manifest:
    """Build `source` into the shard folder `out`, unless it holds just that already.

    A picture whose original bytes come twice is kept once. Bad pictures are skipped and named in
    `bad_pictures.txt`; more than `max_bad` of them stop the build. `limit` keeps the first so many good ones.
    `workers` None uses every core. A build that was interrupted goes on where it stopped.

    Raises:
        UserError: a setting out of range; `out` in use by something else, or by a build of other settings
            (unless `overwrite`); too many bad pictures, or no good one; or the source's own complaint.
    """
    settings = {
        "image_size_px": image_size_px,
        "fit": fit,
        "jpeg_quality": jpeg_quality,
        "val_fraction": val_fraction,
        "limit": limit,
    }
    check_settings(settings | {"workers": workers, "max_bad": max_bad})
    template = caption_template if caption_template is not None else source.caption_template
    encoder = Encoder(source, image_size_px, check_fit(fit), jpeg_quality, template)
    settings |= {"source": source.describe(), "caption_template": template}
    settings = json.loads(json.dumps(settings))  # as a manifest gives them back
    folder = OutFolder(Path(out), settings, overwrite=overwrite)
    if (manifest := folder.finished()) is not None:
        return manifest
    folder.check_free()
    started = time.monotonic()
    tally = Tally(max_bad=max_bad, limit=limit)
    try:
        with folder.locked():
            manifest = _build(encoder, folder, settings, tally, workers=workers, progress=progress)
    except OSError as error:
        raise UserError(f"the build of {out} stopped: {error}. The same command goes on from there.") from error
    if progress and tally.seen:
        text = tally.summary(folder.path, manifest, time.monotonic() - started)
        Console().print(text, soft_wrap=True, markup=False, highlight=False)
    return manifest


def ensure_shards(source: Source | str | Path, *, out: str | Path | None = None, **settings: Any) -> Path:
    """A finished shard folder: the path itself where it is one, else what `build_shards` makes of it.

    `settings` are those of `build_shards`; `out` None is `default_out`.
    """
    if isinstance(source, (str, Path)):
        if (Path(source) / MANIFEST_FILE).is_file():
            return Path(source)
        source = open_source(source)
    out = Path(out) if out is not None else default_out(source, image_size_px=settings["image_size_px"])
    build_shards(source, out, **settings)
    return out


def check_settings(settings: Mapping[str, Any]) -> None:
    """UserError for a value of the wrong kind or out of range: they come from the command line."""
    for name, (low, high) in _RANGES.items():
        value: Any = settings[name]
        if value is None and name in ("limit", "workers"):
            continue
        right_kind = isinstance(value, (int, float) if isinstance(low, float) else int)
        if not right_kind or isinstance(value, bool) or not low <= value <= high:
            kind = "a number" if isinstance(low, float) else "a whole number"
            upper = f" to {high}" if high < math.inf else " or more"
            raise UserError(f"{name}={value} is out of range. Give {kind}, {low}{upper}.")
    check_fit(settings["fit"])


def unfinished(out: str | Path) -> bool:
    """Whether an interrupted build lies at `out`: no data set yet; building it again goes on from there."""
    return (Path(out) / BUILDING_FOLDER).is_dir() and not (Path(out) / MANIFEST_FILE).is_file()


def default_out(source: Source, *, image_size_px: int) -> Path:
    """Where shards go when nobody says: `data/<name>-<size>px`."""
    return Path("data") / f"{source.name}-{image_size_px}px"


def _build(
    encoder: Encoder,
    folder: OutFolder,
    settings: dict[str, Any],
    tally: Tally,
    *,
    workers: int | None,
    progress: bool,
) -> Manifest:
    try:
        if (manifest := folder.finished()) is not None:  # by another process, while this one waited
            folder.abandon()
            return manifest
        shards = _write_shards(encoder, folder, settings, tally, workers=workers, progress=progress)
    except WorkerDiedError:
        raise
    except UserError:
        folder.abandon()
        if tally.too_many_bad:
            folder.path.mkdir(exist_ok=True)
            _write_bad_pictures(folder.path, tally)
        raise
    manifest = write_manifest(
        folder.staging,
        name=encoder.source.name,
        image_size_px=encoder.image_size_px,
        caption_template=encoder.caption_template,
        shards=shards,
        extra={"settings": settings, "counts": tally.counts()},
    )
    if tally.bad:
        _write_bad_pictures(folder.staging, tally)
    folder.publish()
    return manifest


def _write_shards(
    encoder: Encoder,
    folder: OutFolder,
    settings: dict[str, Any],
    tally: Tally,
    *,
    workers: int | None,
    progress: bool,
) -> dict[str, Any]:
    """Every chunk's pictures into the staging folder; {split: its shards}."""
    source = encoder.source
    total = min((n for n in (source.count, tally.limit) if n is not None), default=None)
    if source.count is not None and total is not None and total <= _IN_PROCESS_UP_TO:
        workers = 1
    shutil.rmtree(folder.staging, ignore_errors=True)
    with ExitStack() as stack:
        spool = stack.enter_context(closing(Spool(folder.spool, [__version__, settings])))
        writers = {split: stack.enter_context(ShardWriter(folder.staging, split=split)) for split in SPLITS}
        results = stack.enter_context(closing(_results(encoder, spool, workers)))
        bar = stack.enter_context(_progress_bar(progress))
        task = bar.add_task(f"{source.name} {encoder.image_size_px} px", total=total, rate="")
        started = time.monotonic()
        for chunk in results:
            for picture in chunk:
                if isinstance(picture, BadPicture):
                    tally.note_bad(picture)
                elif not tally.full and tally.note_good(picture):
                    split = split_of(picture.key, val_fraction=settings["val_fraction"])
                    writers[split].add(picture.key, picture.image, picture.caption, picture.metadata)
            rate = len(tally.seen) / max(time.monotonic() - started, 1e-9)
            bar.update(task, advance=len(chunk), rate=f"{rate:.0f} pictures/s")
            if tally.full:
                break
        shards = {split: infos for split, writer in writers.items() if (infos := writer.close())}
    if "train" not in shards:
        bad = f" ({len(tally.bad)} bad: {tally.bad[0].name}: {tally.bad[0].reason}; ...)" if tally.bad else ""
        raise UserError(f"{source.name} gave no picture to train on{bad}. Check source.path and val_fraction.")
    return shards


def _results(encoder: Encoder, spool: Spool, workers: int | None) -> Generator[list[Encoded | BadPicture], None, None]:
    """What each chunk gave: first as an interrupted build left it, then fresh, and remembered."""
    done = 0
    for results in spool.replay():
        done += 1
        yield results
    chunks = itertools.islice(encoder.source.chunks(), done, None)
    with closing(ordered_map(encoder, chunks, workers=workers)) as fresh:
        for results in fresh:
            spool.append(results)
            yield results


def _write_bad_pictures(folder: Path, tally: Tally) -> None:
    (folder / BAD_PICTURES_FILE).write_text(tally.bad_pictures(), "utf-8", errors="replace")


def _progress_bar(shown: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), disable=not shown)
