"""Files of pictures that are tensors: PNGs with their story, GIFs, grids and film strips (`sheets.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffusion_art.files import written
from diffusion_art.sheets import TILE_PX, contact_sheet, encode, sheet, tile, write_png
from diffusion_art.tensors import to_uint8


def to_pil(image: Float[Tensor, "c h w"]) -> Image.Image:
    return Image.fromarray(to_uint8(image))


def to_png(image: Float[Tensor, "c h w"] | Image.Image, path: str | Path, metadata: Mapping[str, Any]) -> Path:
    """Write one picture with `metadata` in its text chunks: strings as they are, the rest as JSON.

    The file appears under its name only when it is whole.
    """
    return write_png(image if isinstance(image, Image.Image) else to_pil(image), path, metadata)


def to_file(
    image: Float[Tensor, "c h w"], path: Path, metadata: Mapping[str, Any], *, format: str, quality: int | None
) -> Path:
    """Write one picture as `format`, png, jpeg or webp, as `to_png` does; `quality` is that of the last two."""
    if format == "png":
        return to_png(image, path, metadata)
    with written(path) as partial:
        partial.write_bytes(encode(to_uint8(image), format=format, quality=quality, story=metadata))
    return path


def to_gif(
    frames: Float[Tensor, "n c h w"],
    path: str | Path,
    *,
    frame_s: float = 0.1,
    there_and_back: bool = True,
    side_px: int = TILE_PX,
) -> Path:
    """Write frames as an animated GIF without end, enlarged to at least `side_px` by a whole factor.

    `there_and_back` plays them to the last and back, with a rest of half a second at both ends.
    """
    factor = max(1, -(-side_px // frames.shape[-1]))
    size = (frames.shape[-1] * factor, frames.shape[-2] * factor)
    shown = [to_pil(frame).resize(size, Image.Resampling.NEAREST) for frame in frames]
    if there_and_back:
        shown += shown[-2:0:-1]
    durations = [round(1000 * frame_s)] * len(shown)
    if there_and_back:
        durations[0] = durations[len(frames) - 1] = 500
    with written(Path(path)) as partial:
        shown[0].save(
            partial, format="GIF", save_all=True, append_images=shown[1:], duration=durations, loop=0, disposal=1
        )
    return Path(path)


def save_grid(
    images: Float[Tensor, "b c h w"],
    captions: Sequence[str],
    path: str | Path,
    *,
    columns: int | None = None,
    title: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write `grid(...)` as a PNG that also holds the captions as text."""
    picture = grid(images, captions, columns=columns, title=title)
    return to_png(picture, path, {"captions": list(captions), **(metadata or {})})


def grid(
    images: Float[Tensor, "b c h w"] | Sequence[Float[Tensor, "c _h _w"]],
    captions: Sequence[str],
    *,
    columns: int | None = None,
    title: str | None = None,
) -> Image.Image:
    """Pictures in rows of `columns`, each with its caption below, wrapped and cut to fit; they may differ in size."""
    pixels = list(to_uint8(images)) if isinstance(images, Tensor) else [to_uint8(image) for image in images]
    return contact_sheet(pixels, captions, columns=columns, title=title)


def film_strip(
    frames: Sequence[Float[Tensor, "b c h w"]], labels: Sequence[str], *, title: str | None = None
) -> Image.Image:
    """One row for each picture, one column for each frame, with the frames' labels below."""
    if len(frames) != len(labels):
        raise ValueError(f"{len(frames)} frames came with {len(labels)} labels")
    pixels = [to_uint8(frame) for frame in frames]
    rows = range(len(frames[0]))
    return sheet([[tile(p[row], label) for p, label in zip(pixels, labels)] for row in rows], title)
