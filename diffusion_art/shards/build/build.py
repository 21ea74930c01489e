"""A source of pictures -> a folder of shards with its manifest.

Deterministic: the same source and settings give the same bytes, on any number of cores, also when the build
was killed and run again on the way.

The pictures are written in one pass as they come, and where that was not enough in a second one. While pictures are
still to come nobody knows whether the source names a validation split, nor whether a picture comes again with another
caption. When it does, the shards are written once more from the spool, where all results are.
"""

from __future__ import annotations

import inspect
import itertools
import json
import logging
import math
import shutil
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from diffusion_art import __version__
from diffusion_art.errors import UserError
from diffusion_art.shards.build.encode import Encoded, Encoder, Result
from diffusion_art.shards.build.engine import Engine, LocalEngine, WorkerDiedError, engine_named
from diffusion_art.shards.build.out_folder import CAPTION_RULES, RULES_KEY, OutFolder, Spool, of_older_rules
from diffusion_art.shards.build.tally import BAD_PICTURES_FILE, NAMED_SPLITS, Tally, summary
from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest, ShardInfo
from diffusion_art.shards.reader import ShardWriter, write_manifest
from diffusion_art.sizes import bucket_sizes
from diffusion_art.sources.base import BadPicture, LeftOut, Note, Source
from diffusion_art.sources.detect import BUILDING_FOLDER
from diffusion_art.sources.embedded import with_captions_within
from diffusion_art.sources.paths.listing import told
from diffusion_art.sources.pictures import check_fit
from diffusion_art.units import progress_bar

log = logging.getLogger(__name__)

SPLITS = ("train", "val")
_IN_PROCESS_UP_TO = 64  # pictures; starting worker processes takes longer than these
_RANGES: dict[str, tuple[float, float]] = {
    "image_size_px": (4, 4096),
    "jpeg_quality": (1, 100),
    "val_fraction": (0.0, 0.9),
    "limit": (1, math.inf),
    "workers": (1, math.inf),
    "max_bad": (0, math.inf),
    "max_megapixels": (0.001, 100_000.0),
    "bucket_step_px": (1, 4096),
    "bucket_max_ratio": (1.0, 8.0),
}
_YOUNGER = ("max_megapixels", "bucket_step_px", "bucket_max_ratio")  # than many a shard folder, which names none
# the settings that change the shards
_OF_A_PICTURE = ("image_size_px", "fit", "jpeg_quality", "val_fraction", "limit", *_YOUNGER)


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
    engine: str = "local",
    ray: Mapping[str, Any] | None = None,
    max_bad: int = 100,
    max_megapixels: float = 50.0,
    bucket_step_px: int | None = None,
    bucket_max_ratio: float = 3.0,
    allow_no_captions: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    again: str | None = None,
) -> Manifest:
    """Build `source` into the shard folder `out`, unless it holds just that already.

    A picture whose original bytes come twice is kept once, with the captions of both. A validation split that the
    source names is the one; else it is `val_fraction` of the pictures. Bad pictures are skipped and named in
    `bad_pictures.txt`; more than `max_bad` of them stop the build. `limit` keeps the first so many good ones.
    `workers` None uses every core; `engine` and `ray` say whose (engine.py). A build that was interrupted goes on where
    it stopped. `caption_template` "" gives no captions. With `bucket_step_px` pictures keep their shape: each is stored
    at the size, of about the area of the square, that crops it least; sides are multiples of it, at most
    `bucket_max_ratio` to one (buckets.py). `again` is the command that called, for the error where `out` holds
    something else.

    Raises:
        UserError: a setting out of range; `out` in use by something else, or by a build of other settings
            (unless `overwrite`); too many bad pictures, or no good one; no caption at all (unless
            `allow_no_captions`); or the source's own complaint.
    """
    given = {
        "image_size_px": image_size_px,
        "fit": fit,
        "jpeg_quality": jpeg_quality,
        "val_fraction": val_fraction,
        "limit": limit,
        "max_megapixels": max_megapixels,
        "bucket_step_px": bucket_step_px,
        "bucket_max_ratio": bucket_max_ratio,
    }
    check_settings(given | {"workers": workers, "max_bad": max_bad})
    runs_on = engine_named(engine, workers=workers, ray=ray)
    template = caption_template if caption_template is not None else source.caption_template
    settings = identity_of(source, given) | {"caption_template": template}
    buckets = bucket_sizes(image_size_px, step_px=bucket_step_px, max_ratio=bucket_max_ratio) if bucket_step_px else ()
    encoder = Encoder(source, image_size_px, check_fit(fit), jpeg_quality, template, float(max_megapixels), buckets)
    folder = OutFolder(Path(out), settings, overwrite=overwrite, again=again)
    if (manifest := folder.finished()) is not None:
        if line := of_older_rules(folder.path, folder.to_replace()):
            log.info("%s", line)
        return manifest
    folder.check_free()
    started = time.monotonic()
    tally = Tally(
        max_bad=max_bad,
        limit=limit,
        allow_no_captions=allow_no_captions or template == "",
        listed=source.left_out,
        within=partial(with_captions_within, source),
    )
    try:
        with folder.locked():
            manifest = _build(encoder, folder, settings, tally, engine=runs_on, progress=progress)
    except OSError as error:
        raise UserError(f"the build of {out} stopped: {error}. The same command goes on from there.") from error
    if progress and tally.seen:
        text = summary(folder.path, manifest, time.monotonic() - started)
        Console().print(text, soft_wrap=True, markup=False, highlight=False)
    return manifest


def identity_of(source: Source, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the pictures in the shards of `source` what they are, as a manifest gives it back; of equal ones the
    shards are equal, but for captions.

    `settings` are those of `build_shards`: what is left out has its default, what changes no picture is ignored.
    """
    parameters = inspect.signature(build_shards).parameters
    chosen = {name: settings[name] if name in settings else parameters[name].default for name in _OF_A_PICTURE}
    plain = {name for name in _YOUNGER if chosen[name] == parameters[name].default}
    plain |= {"bucket_max_ratio"} if not chosen["bucket_step_px"] else set()
    chosen = {name: value for name, value in chosen.items() if name not in plain}
    return json.loads(json.dumps(chosen | {"source": source.describe()}))


def check_settings(settings: Mapping[str, Any]) -> None:
    """UserError for a value of the wrong kind or out of range: they come from the command line."""
    for name in [name for name in _RANGES if name in settings]:
        low, high = _RANGES[name]
        value: Any = settings[name]
        if value is None and name in ("limit", "workers", "bucket_step_px"):
            continue
        right_kind = isinstance(value, (int, float) if isinstance(low, float) else int)
        if not right_kind or isinstance(value, bool) or not low <= value <= high:
            kind = "a number" if isinstance(low, float) else "a whole number"
            upper = f" to {high}" if high < math.inf else " or more"
            raise UserError(f"{name}={value} is out of range. Give {kind}, {low}{upper}.")
    if "fit" in settings:
        check_fit(settings["fit"])
        if settings.get("bucket_step_px") and settings["fit"] != "crop":
            raise UserError(
                f"fit={settings['fit']} is for squares, and with bucket_step_px pictures keep their shape: leave fit "
                "at crop, which cuts what the nearest bucket cannot hold."
            )


def unfinished(out: str | Path) -> bool:
    """Whether an interrupted build lies at `out`: no data set yet; building it again goes on from there."""
    return (Path(out) / BUILDING_FOLDER).is_dir() and not (Path(out) / MANIFEST_FILE).is_file()


def default_out(name: str, *, image_size_px: int) -> Path:
    """Where the shards of a source called `name` go when nobody says: `data/<name>-<size>px`."""
    return Path("data") / f"{name}-{image_size_px}px"


def _build(
    encoder: Encoder, folder: OutFolder, settings: dict[str, Any], tally: Tally, *, engine: Engine, progress: bool
) -> Manifest:
    try:
        if (manifest := folder.finished()) is not None:  # by another process, while this one waited
            folder.abandon()
            return manifest
        shards = write_shards(encoder, folder, settings, tally, engine=engine, progress=progress)
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
        extra={
            "settings": settings,
            "counts": tally.counts(encoder.source.left_out()),
            "columns": tally.column_names(),
            RULES_KEY: CAPTION_RULES,
            **({"splits": NAMED_SPLITS} if tally.named_val else {}),
        },
        bucketed=bool(encoder.buckets),
    )
    if tally.bad:
        _write_bad_pictures(folder.staging, tally)
    folder.publish()
    return manifest


def _write_bad_pictures(folder: Path, tally: Tally) -> None:
    (folder / BAD_PICTURES_FILE).write_text(tally.bad_pictures(), "utf-8", errors="replace")


# ---------------------------------------------------------------------- pictures into staged shards


def write_shards(
    encoder: Encoder, folder: OutFolder, settings: dict[str, Any], tally: Tally, *, engine: Engine, progress: bool
) -> dict[str, list[ShardInfo]]:
    """Every chunk's pictures into the staging folder; {split: its shards}.

    UserError as from `Tally`, or where there is no picture to train on.
    """
    source = encoder.source
    total = min((n for n in (source.count, tally.limit) if n is not None), default=None)
    few = source.count is not None and total is not None and total <= _IN_PROCESS_UP_TO
    if few and isinstance(engine, LocalEngine):
        engine = LocalEngine(workers=1)
    fraction = settings["val_fraction"]
    with closing(Spool(folder.spool, [__version__, CAPTION_RULES, settings])) as spool, _bar(progress) as bar:
        task = bar.add_task(f"{source.name} {encoder.image_size_px} px", total=total, rate="")
        with closing(_results(encoder, spool, engine)) as results:
            shown = _shown(results, bar, task, tally)
            shards = _write(folder, (new for chunk in shown for new in _new(chunk, tally)), tally, fraction)
        tally.check_captions()
        if tally.needs_another_pass:
            shards = _write(folder, _kept(spool, tally), tally, fraction)
    if "train" not in shards:
        bad = f" ({len(tally.bad)} bad: {tally.bad[0].name}: {tally.bad[0].reason}; ...)" if tally.bad else ""
        left_out = told(Counter(source.left_out()) + tally.left_out)
        raise UserError(
            f"{source.name} gave no picture to train on{bad}{left_out}. Check source.path and val_fraction."
        )
    return shards


def _write(
    folder: OutFolder, pictures: Iterable[Encoded], tally: Tally, val_fraction: float
) -> dict[str, list[ShardInfo]]:
    """These into new shards; once they have to be written again, they are only looked at."""
    shutil.rmtree(folder.staging, ignore_errors=True)
    with ExitStack() as stack:
        writers = {split: stack.enter_context(ShardWriter(folder.staging, split=split)) for split in SPLITS}
        for picture in pictures:
            split = tally.split(picture, val_fraction=val_fraction)
            writers[split].add(picture.key, picture.image, picture.caption, picture.metadata)
        return {split: infos for split, writer in writers.items() if (infos := writer.close())}


def _new(chunk: list[Result], tally: Tally) -> Iterator[Encoded]:
    """The pictures of a chunk that come for the first time; the others, and what is none, are counted."""
    for item in chunk:
        if isinstance(item, BadPicture):
            tally.note_bad(item)
        elif isinstance(item, LeftOut):
            tally.note_left_out(item)
        elif tally.note_good(item) and not tally.needs_another_pass:
            yield item


def _kept(spool: Spool, tally: Tally) -> Iterator[Encoded]:
    """Every picture that counts once more, with all its captions."""
    waited_for = set(tally.seen)
    for item in itertools.chain.from_iterable(spool.replay()):
        if isinstance(item, Encoded) and (number := int(item.key, 16)) in waited_for:
            waited_for.remove(number)
            yield tally.merged(item)


def _shown(results: Iterable[list[Result]], bar: Progress, task: Any, tally: Tally) -> Iterator[list[Result]]:
    """The chunks, up to where the tally is full, each moving the bar once it is dealt with."""
    started = time.monotonic()
    for chunk in results:
        yield chunk
        rate = len(tally.seen) / max(time.monotonic() - started, 1e-9)
        bar.update(task, advance=sum(not isinstance(item, Note) for item in chunk), rate=f"{rate:.0f} pictures/s")
        if tally.full:
            return


def _results(encoder: Encoder, spool: Spool, engine: Engine) -> Generator[list[Result], None, None]:
    """What each chunk gave: first as an interrupted build left it, then fresh, and remembered."""
    done = 0
    for results in spool.replay():
        done += 1
        yield results
    chunks = itertools.islice(encoder.source.chunks(), done, None)
    with closing(engine.map(encoder, chunks)) as fresh:
        for results in fresh:
            spool.append(results)
            yield results


def _bar(shown: bool) -> Progress:
    return progress_bar(shown, MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
