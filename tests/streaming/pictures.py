"""Shards of small real JPEGs, for clients that look at what they get."""

from itertools import islice
from pathlib import Path

import numpy as np
import simplejpeg

from diffusion_art.shards.reader import Manifest, ShardWriter, write_manifest


def picture(i: int, size_px: int = 16) -> bytes:
    """A JPEG that only sample `i` has."""
    pixels = np.random.default_rng(i).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=80)


def picture_key(i: int) -> str:
    """Keys of both halves of the 64 bits, and never in the order of `i`."""
    return f"{(i * 0x9E3779B97F4A7C15 + 1) % 2**64:016x}"


def picture_caption(i: int) -> str:
    return f'Fränz "Marc" {i} / Blaue\\Pferde\n / 浮世絵'


def write_pictures(
    folder: Path, *, train: int = 100, val: int = 10, size_px: int = 16, damaged: dict[int, bytes] | None = None
) -> Manifest:
    """`train` and then `val` pictures; some of them `damaged`, that is, other bytes."""
    shards, numbers = {}, iter(range(train + val))
    for split, samples in {"train": train, "val": val}.items():
        with ShardWriter(folder, split=split, max_samples=32) as writer:
            for i in islice(numbers, samples):
                writer.add(picture_key(i), (damaged or {}).get(i) or picture(i, size_px), picture_caption(i), {})
            shards[split] = writer.close()
    return write_manifest(folder, name="pictures", image_size_px=size_px, caption_template=None, shards=shards)
