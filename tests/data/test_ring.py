"""Memory that is used again: only when nobody looks at it any more, and never with another batch's pictures."""

from __future__ import annotations

import gc
import multiprocessing
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

from diffusion_art.data.dataset import StreamDataset
from diffusion_art.data.workers import Parcel, Ring
from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.client.shard_reader import ShardReader


def _dataset(shards, *, ring=None, batches=40, batch_size=8, **settings) -> StreamDataset:
    defaults = {"split": "train", "seed": 0, "samples": ShardSet.open(shards).splits["train"], "image_size_px": 16}
    return StreamDataset(
        partial(ShardReader, shards),
        global_batch_size=batch_size,
        last_batch=batches,
        ring=ring,
        **{**defaults, **settings},
    )


def _loader(dataset: StreamDataset, workers: int, **settings) -> DataLoader:
    return DataLoader(dataset, batch_size=None, num_workers=workers, **settings)


def _addresses(batches: list) -> list[int]:
    return [batch.images.untyped_storage().data_ptr() for batch in batches]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_the_same_with_and_without_a_ring(painter_shards, workers):
    plain = list(_dataset(painter_shards))
    ring = Ring(workers=workers, slots=4)
    seen = []
    for batch, expected in zip(_loader(_dataset(painter_shards, ring=ring), workers), plain, strict=True):
        assert type(batch) is type(expected)
        assert (batch.keys, batch.captions, batch.positions) == (expected.keys, expected.captions, expected.positions)
        assert batch.cursor == expected.cursor
        assert torch.equal(batch.images, expected.images)
        assert batch.images.stride() == expected.images.stride()
        seen.append(batch.images.data_ptr())
    assert len(set(seen)) <= 4 * workers < len(seen)


def test_batches_that_are_held_are_not_overwritten(painter_shards):
    """More of them than there are slots."""
    plain = list(_dataset(painter_shards))
    held = list(_loader(_dataset(painter_shards, ring=Ring(workers=2, slots=3)), 2))
    assert len(set(_addresses(held))) == len(held)
    for batch, expected in zip(held, plain, strict=True):
        assert torch.equal(batch.images, expected.images)


def test_a_view_holds_its_slot(painter_shards):
    # Two batches on their way, one in hand and one that enumerate still holds: with fewer, one finds no slot at times.
    ring = Ring(workers=1, slots=4)
    plain = list(_dataset(painter_shards))
    for k, batch in enumerate(_loader(_dataset(painter_shards, ring=ring), 1)):
        if k == 5:
            picture, flat = batch.images[3], batch.images.permute(0, 2, 3, 1).numpy().reshape(-1)
        del batch
    gc.collect()
    assert torch.equal(picture, plain[5].images[3])
    assert torch.equal(torch.from_numpy(flat), plain[5].images.permute(0, 2, 3, 1).reshape(-1))
    assert ring._taken.sum() == 1
    del picture
    assert ring._taken.sum() == 1
    del flat
    assert ring._taken.sum() == 0


def test_short_and_longer_batches_find_room(painter_shards):
    """A validation pass ends with a short batch; the same ring then serves batches twice as large."""
    ring = Ring(workers=1, slots=3)
    count = ShardSet.open(painter_shards).splits["val"]
    for size in (8, 16, 4):
        settings = {"split": "val", "seed": None, "samples": count, "batches": -(-count // size), "batch_size": size}
        plain = list(_dataset(painter_shards, **settings))
        shown = _loader(_dataset(painter_shards, ring=ring, **settings), 1)
        for batch, expected in zip(shown, plain, strict=True):
            assert torch.equal(batch.images, expected.images)
        del batch
    assert ring._taken.sum() == 0


def test_a_second_pass_of_the_same_workers_uses_the_same_memory(painter_shards):
    ring = Ring(workers=1, slots=7)
    loader = _loader(_dataset(painter_shards, ring=ring, batches=12), 1, persistent_workers=True)
    passes = []
    for _ in range(3):
        pictures = []
        for batch in loader:
            pictures.append(batch.images.clone())
            del batch
        passes.append(torch.cat(pictures))
        assert ring._taken.sum() == 0
    assert torch.equal(passes[0], passes[1])
    assert torch.equal(passes[0], passes[2])


def test_without_workers_there_is_nothing_to_share(painter_shards):
    ring = Ring(workers=1, slots=3)
    batch = next(iter(_dataset(painter_shards, ring=ring)))
    assert not isinstance(batch, Parcel)
    assert ring._taken.sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in multiprocessing.get_all_start_methods() if m != "fork"])
def test_workers_that_are_not_forked_share_too(painter_shards, method):
    plain = list(_dataset(painter_shards, batches=20))
    loader = _loader(
        _dataset(painter_shards, ring=Ring(workers=1, slots=4), batches=20), 1, multiprocessing_context=method
    )
    seen = []
    for batch, expected in zip(loader, plain, strict=True):
        assert torch.equal(batch.images, expected.images)
        seen.append(batch.images.data_ptr())
        del batch
    assert len(set(seen)) <= 4


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("with_ring", [True, False])
def test_rows_stay_in_the_cache_they_are_decoded_into(painter_shards, workers, with_ring):
    """Not aligned to the 32 bytes at which libjpeg-turbo would write past it; see workers.py."""
    ring = Ring(workers=1, slots=2) if with_ring else None
    for batch in _loader(_dataset(painter_shards, ring=ring, batches=5), workers):
        assert batch.images.data_ptr() % 32 == 16
