"""The pictures of the benchmark: painted once, as shards that every side reads or is converted from."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.reader import ShardSet, ShardWriter, write_manifest
from diffusion_art.sources.painter import Painter

# Tars in the set: webdataset and its like share out and shuffle whole files.
_FILES = 16


def pictures(folder: Path, *, count: int, size_px: int) -> Path:
    """A shard folder under `folder` with `count` paintings of `size_px`, all of them to train on."""
    shards = folder / f"painter-{count}-{size_px}px"
    if (shards / "manifest.json").is_file():
        return shards
    painted = folder / "painted"
    build_shards(Painter(count=count, image_size_px=size_px), painted, image_size_px=size_px, val_fraction=0.0)
    return reshard(painted, shards)


def reshard(source: Path, out: Path) -> Path:
    """The training samples of `source` anew in `out`, in `_FILES` tars."""
    shutil.rmtree(out, ignore_errors=True)
    stored = ShardSet.open(source)
    samples = stored.splits["train"]
    with ShardWriter(out, split="train", max_samples=-(-samples // _FILES)) as writer:
        for i in range(samples):
            sample = stored.read("train", i)
            writer.add(sample.key, bytes(sample.image), sample.caption, stored.metadata("train", i))
        written = {"train": writer.close()}
    manifest = stored.manifest
    write_manifest(
        out,
        name=manifest.name,
        image_size_px=manifest.image_size_px,
        caption_template=manifest.caption_template,
        shards=written,
    )
    return out
