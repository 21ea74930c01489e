"""The door between tensors and files: [-1, 1] floats inside, 8-bit PNGs with their story outside (`sheets.py`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from diffusion_art.sheets import contact_sheet, sheet, tile, write_png

log = logging.getLogger(__name__)


def to_uint8(images: Float[Tensor, "*b c h w"]) -> UInt8[np.ndarray, "*b h w c"]:
    """[-1, 1] floats to 8-bit pixels, channels last. Values outside are clipped; NaNs come out grey."""
    images = images.detach().float().cpu()
    if not torch.isfinite(images).all():
        log.warning("a picture holds values that are not finite; they are painted grey")
        images = images.nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0)
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1).numpy()


def to_pil(image: Float[Tensor, "c h w"]) -> Image.Image:
    return Image.fromarray(to_uint8(image))


def to_png(image: Float[Tensor, "c h w"] | Image.Image, path: str | Path, metadata: Mapping[str, Any]) -> Path:
    """Write one picture with `metadata` in its text chunks: strings as they are, the rest as JSON.

    The file appears under its name only when it is whole.
    """
    return write_png(image if isinstance(image, Image.Image) else to_pil(image), path, metadata)


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
    images: Float[Tensor, "b c h w"],
    captions: Sequence[str],
    *,
    columns: int | None = None,
    title: str | None = None,
) -> Image.Image:
    """Pictures in rows of `columns`, each with its caption below, wrapped and cut to fit."""
    return contact_sheet(list(to_uint8(images)), captions, columns=columns, title=title)


def film_strip(
    frames: Sequence[Float[Tensor, "b c h w"]], labels: Sequence[str], *, title: str | None = None
) -> Image.Image:
    """One row for each picture, one column for each frame, with the frames' labels below."""
    if len(frames) != len(labels):
        raise ValueError(f"{len(frames)} frames came with {len(labels)} labels")
    pixels = [to_uint8(frame) for frame in frames]
    rows = range(len(frames[0]))
    return sheet([[tile(p[row], label) for p, label in zip(pixels, labels)] for row in rows], title)
