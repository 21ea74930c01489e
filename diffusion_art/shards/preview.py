"""A captioned contact sheet of the pictures that a run would see first."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.pixels import BadPicture, decode, fit
from diffusion_art.shards.places import ShardSpec
from diffusion_art.sheets import contact_sheet, write_png

log = logging.getLogger(__name__)

MAX_PREVIEW = 1024  # pictures on one sheet


def preview(
    spec: ShardSpec,
    *,
    split: str = "train",
    count: int = 32,
    seed: int | None = 0,
    columns: int | None = None,
    out: str | Path | None = None,
) -> Path:
    """Paint the first `count` pictures of `split` in the order of a run with `seed`, with all their captions; the
    sheet's path.

    UserError when the split is empty or none of the pictures can be read.
    """
    found = open_shards(spec)
    samples = found.splits.get(split, 0)
    if samples == 0:
        counts = ", ".join(f"{n:,} in {name}" for name, n in found.splits.items())
        raise UserError(f"{found.name} has no pictures in split {split!r}, but {counts}. Choose another with split=...")
    if not 1 <= count <= MAX_PREVIEW:
        raise UserError(f"count={count} does not fit a sheet; give 1 to {MAX_PREVIEW}.")
    numbers = found.samples(split, seed, 0, 0, min(count, samples))
    keys, _, images = found.views(split, numbers)
    pictures, texts = [], []
    for number, key, image in zip(numbers.tolist(), keys.tolist(), images, strict=True):
        try:
            captions = found.captions(split, number)
            pictures.append(fit(decode(image or b""), (found.image_size_px, found.image_size_px)))
            texts.append(" | ".join(captions))
        except (BadPicture, OSError, ValueError, RecursionError) as error:
            log.warning("picture %016x cannot be read and is left out: %s", key, error)
    if not pictures:
        raise UserError(f"none of {len(numbers)} pictures of {found.name} can be read; see `shards lint`.")
    order = "in stored order" if seed is None else f"as seed {seed} shows them"
    title = f"{found.name}: {len(pictures)} of {samples:,} in {split}, {order}"
    path = Path(out) if out is not None else Path(f"{re.sub(r'[^a-z0-9_]+', '-', found.name.lower())}-preview.png")
    story = {"digest": found.digest, "split": split, "keys": [f"{key:016x}" for key in keys.tolist()]}
    sheet = contact_sheet(pictures, texts, columns=columns, title=title)
    return write_png(sheet, path, {"captions": texts, **story})
