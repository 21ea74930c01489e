"""Shards of small pictures in many shapes, built as `prepare bucket_step_px=4` builds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.manifest import Manifest
from diffusion_art.sources.detect import open_source
from tests.fakes_sources import encoded, picture, write_files

SHAPES = ((40, 40), (52, 40), (40, 54), (64, 40), (41, 40), (90, 30))


def write_pictures(root: Path, count: int = 40, *, first: int = 0, shapes: Sequence[tuple[int, int]] = SHAPES) -> Path:
    """A folder of pictures whose shapes take turns, each with its caption beside it."""
    files: dict[str, bytes | str] = {}
    for number in range(first, first + count):
        width, height = shapes[number % len(shapes)]
        files[f"{number:03d}.png"] = encoded(picture(number, width=width, height=height), "PNG")
        files[f"{number:03d}.txt"] = f"picture {number}"
    return write_files(root, files)


def bucketed_shards(folder: Path, count: int = 40, *, first: int = 0, val_fraction: float = 0.2) -> Manifest:
    """Shards of 16 px in steps of 4 at `folder`, from pictures that lie beside it."""
    pictures = write_pictures(folder.with_name(f"{folder.name}-pictures"), count, first=first)
    asked = {"image_size_px": 16, "bucket_step_px": 4, "val_fraction": val_fraction, "workers": 1}
    return build_shards(open_source(pictures), folder, **asked, progress=False)
