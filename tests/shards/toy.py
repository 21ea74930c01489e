"""A shard folder of random bytes: the stream does not care what a picture is."""

from pathlib import Path

import numpy as np

from diffusion_art.shards.manifest import sha256_of
from diffusion_art.shards.reader import Manifest, ShardSet, ShardWriter, write_manifest


def toy_image(i: int, size: int = 200) -> bytes:
    """Up to `size` bytes that only sample `i` has."""
    random = np.random.default_rng(i)
    return random.bytes(int(random.integers(1, size + 1)))


def toy_caption(i: int) -> str:
    return f"Ärtist {i} / Title {i} / 浮世絵"


def toy_key(split: str, i: int) -> str:
    return f"{('train', 'val').index(split):08x}{i:08x}"


def write_toy(
    folder: Path, *, train: int = 100, val: int = 10, size: int = 200, max_samples: int = 32, seed: int = 0
) -> Manifest:
    """`train` and `val` samples in shards of `max_samples`; another `seed`, other pictures."""
    shards = {}
    for split, samples in {"train": train, "val": val}.items():
        with ShardWriter(folder, split=split, max_samples=max_samples) as writer:
            for i in range(samples):
                metadata = {"title": f"Title {i}", "date": None}
                writer.add(toy_key(split, i), toy_image(i + 1000 * seed, size), toy_caption(i), metadata)
            shards[split] = writer.close()
    return write_manifest(
        folder,
        name=f"toy-{seed}",
        image_size_px=32,
        caption_template="{title}",
        shards=shards,
        extra={"seed": seed},
    )


def is_whole(shards: ShardSet) -> bool:
    """Whether every file has the bytes that the manifest names."""
    files = [info for split in shards.manifest.shards for info in shards.manifest.files(split)]
    return all(sha256_of(shards.folder / info.file) == info.sha256 for info in files)
