"""No picture that is kept for validation is ever trained on: in any epoch, however the shards are cut or mixed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from diffusion_art.data.dataset import StreamDataset
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.encode import split_of
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.places import ShardSpec
from diffusion_art.shards.reader import ShardSet, ShardWriter, write_manifest
from diffusion_art.sources.painter import Painter
from diffusion_art.streaming.client.shard_reader import ShardReader

VAL_FRACTION = 0.2  # of the fixture


def rebuilt(folder: Path, out: Path, *, max_samples: int) -> Path:
    """The samples of `folder` in shards of another size, in another order, split anew by their keys."""
    shards = ShardSet.open(folder)
    found = {}
    for split, samples in shards.splits.items():
        for i in range(samples):
            sample = shards.read(split, i)
            found[sample.key] = (bytes(sample.image), sample.caption, shards.metadata(split, i))
    written = {}
    for split in ("train", "val"):
        with ShardWriter(out, split=split, max_samples=max_samples) as writer:
            for key in sorted(found):
                if split_of(key, val_fraction=VAL_FRACTION) == split:
                    writer.add(key, *found[key])
            written[split] = writer.close()
    write_manifest(out, name="rebuilt", image_size_px=16, caption_template=None, shards=written)
    return out


def trained_on(spec: ShardSpec, *, epochs: int, seed: int) -> set[str]:
    """The keys that `epochs` epochs of training show, read as training reads them."""
    samples = open_shards(spec).splits["train"]
    dataset = StreamDataset(
        partial(ShardReader, spec),
        split="train",
        seed=seed,
        samples=samples,
        global_batch_size=16,
        last_batch=-(-epochs * samples // 16),
        image_size_px=16,
    )
    return {key for batch in dataset for key in batch.keys}


def held_out(spec: ShardSpec) -> set[str]:
    shards = open_shards(spec)
    keys, _, _ = shards.views("val", np.arange(shards.splits["val"]))
    return {f"{key:016x}" for key in keys.tolist()}


@pytest.mark.slow
def test_three_epochs_show_no_validation_picture_also_after_a_rebuild(painter_shards: Path, tmp_path: Path):
    folders = [painter_shards, *(rebuilt(painter_shards, tmp_path / str(n), max_samples=n) for n in (7, 64))]
    assert len({ShardSet.open(folder).digest for folder in folders}) == 3
    kept = held_out(painter_shards)
    assert len(kept) > 10
    for seed, folder in enumerate(folders):
        assert held_out(folder) == kept
        seen = trained_on(folder, epochs=3, seed=seed)
        assert len(seen) == 150 - len(kept)
        assert not seen & kept


@pytest.mark.parametrize("weights", [(3.0, 1.0), (None, None)])
def test_a_mixture_shows_no_validation_picture_of_any_component(painter_shards: Path, tmp_path: Path, weights: tuple):
    other = tmp_path / "other"
    painter = Painter(count=60, seed=5, image_size_px=16)
    build_shards(painter, other, image_size_px=16, val_fraction=VAL_FRACTION, progress=False, workers=1)
    spec = [{"path": path, "weight": weight} for path, weight in zip((painter_shards, other), weights)]
    kept = held_out(painter_shards) | held_out(other)
    assert held_out(spec) == kept
    assert not trained_on(spec, epochs=3, seed=0) & kept
