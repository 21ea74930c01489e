"""A source of pictures -> a folder of shards with its manifest.

Deterministic: the same source and settings give the same bytes, on any number of cores, also when the build
was killed and run again on the way.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from diffusion_art.errors import UserError
from diffusion_art.shards.build.encode import Encoder
from diffusion_art.shards.build.engine import Engine, WorkerDiedError, engine_named
from diffusion_art.shards.build.out_folder import CAPTION_RULES, RULES_KEY, OutFolder, of_older_rules
from diffusion_art.shards.build.passes import write_shards
from diffusion_art.shards.build.tally import BAD_PICTURES_FILE, NAMED_SPLITS, Tally, summary
from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest
from diffusion_art.shards.reader import write_manifest
from diffusion_art.sizes import bucket_sizes
from diffusion_art.sources.base import Source
from diffusion_art.sources.detect import BUILDING_FOLDER
from diffusion_art.sources.embedded import with_captions_within
from diffusion_art.sources.pictures import check_fit

log = logging.getLogger(__name__)

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
