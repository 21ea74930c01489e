"""What `data.path` of a training means: shards, something to build them from, or a list of either to mix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from diffusion_art.data.build import ensure_shards, unfinished
from diffusion_art.errors import UserError
from diffusion_art.sources.base import Source
from diffusion_art.sources.detect import open_source
from diffusion_art.streaming.leaks import refuse_leaks
from diffusion_art.streaming.manifest import MANIFEST_FILE
from diffusion_art.streaming.mixture import Component, ShardSpec, components_of, open_shards

# What is read here of the `data` node; the rest is the data module's.
SHARD_KEYS = ("path", "source", "fit", "jpeg_quality", "val_fraction", "caption_template")

Build: TypeAlias = Callable[[dict[str, Any]], Source]


def locate_shards(data: dict[str, Any], data_dir: str, *, build: Build) -> ShardSpec:
    """The shards of `data.path`: a folder of them, one built from what lies there or from `data.source`, or, where
    `path` is a list to mix, each of its entries found or built in that way. `build` makes `data.source`.

    Raises:
        UserError: there is nothing at a path and no source to make it from, or the entries of a list cannot be
            mixed: their picture sizes differ, or one has training pictures that another keeps for validation.
    """
    if data["path"] is None:
        raise UserError(
            "there is no data: give data.path=FOLDER, or a server that has them, data.url=ws://host:8000/ws."
        )
    if isinstance(data["path"], str | Path):
        return _locate_folder(data, Path(data["path"]), data_dir, build)
    alone = {**data, "source": None}  # a source makes one folder, so it cannot stand in for a list
    found = [
        Component(_locate_folder(alone, component.path, data_dir, build), component.weight)
        for component in components_of(data["path"])
    ]
    refuse_leaks(open_shards(found))
    return found


def _locate_folder(data: dict[str, Any], path: Path, data_dir: str, build: Build) -> Path:
    settings = {key: data[key] for key in ("image_size_px", "fit", "jpeg_quality", "val_fraction", "caption_template")}
    finished = (path / MANIFEST_FILE).is_file()
    if finished and not _cheap(data["source"]):
        return path
    if path.exists() and not finished and not (data["source"] and unfinished(path)):
        source = open_source(path)
        return ensure_shards(source, out=Path(data_dir) / f"{source.name}-{data['image_size_px']}px", **settings)
    if data["source"] is None:
        raise UserError(
            f"there is no data at data.path={path}. Give a folder of shards, of parquet files in WikiArt's layout, "
            "of WebDataset tars or of pictures; or the address of a server that has them: data.url=ws://host:8000/ws."
        )
    return ensure_shards(build(data["source"]), out=path, **settings)


def _cheap(source: dict[str, Any] | None) -> bool:
    """Whether a source costs nothing to open, so that finished shards can be checked against its settings."""
    return source is not None and "painter" in source["_target_"]
