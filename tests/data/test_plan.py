"""Batches of one bucket each: every picture as often as any other, on any number of ranks, workers and restarts."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.data.dataset import StreamDataset
from diffusion_art.data.plan import BatchSizes, Bucketed, BucketsOnce
from diffusion_art.data.transforms import Augmentation
from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.client.shard_reader import ShardReader
from tests.fakes_buckets import bucketed_shards

BUCKETS = {"8x24": 3, "12x16": 50, "16x16": 70, "16x12": 37}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan") / "shards"
    bucketed_shards(folder)
    return folder


def _plan(**changes) -> Bucketed:
    return Bucketed("train", BUCKETS, 8, **{"seed": 0, "digest": "d", **changes})


def test_every_bucket_has_its_share_of_batches_and_goes_through_its_own_order():
    plan, batches = _plan(), 4 * sum(BUCKETS.values())  # whole blocks and whole passes
    stretches = [plan(k) for k in range(batches)]
    assert Counter(stretch.split for stretch in stretches) == {f"train/{b}": 4 * n for b, n in BUCKETS.items()}
    for name, samples in BUCKETS.items():
        starts = sorted(stretch.start for stretch in stretches if stretch.split == f"train/{name}")
        assert starts == [8 * turn for turn in range(4 * samples)]
    assert [stretch.position for stretch in stretches[:3]] == [0, 8, 16]


def test_at_any_time_every_bucket_is_near_its_share():
    plan, seen = _plan(), Counter()
    for k in range(640):
        seen[plan(k).split.removeprefix("train/")] += 1
        if k % 64 == 63:
            for name, samples in BUCKETS.items():
                assert abs(seen[name] - (k + 1) * samples / sum(BUCKETS.values())) <= 2


def test_other_seeds_and_data_have_other_plans():
    plans = [_plan(), _plan(seed=1), _plan(digest="e"), _plan()]
    orders = [[plan(k).split for k in range(64)] for plan in plans]
    assert orders[0] == orders[3] not in (orders[1], orders[2])


def test_validation_is_one_pass_over_shares_of_all_buckets():
    plan = BucketsOnce("val", BUCKETS, 80, 16)
    stretches = [plan(k) for k in range(len(plan))]
    assert sum(stretch.stop - stretch.start for stretch in stretches) == 80
    assert [s.position for s in stretches] == [sum(t.stop - t.start for t in stretches[:k]) for k in range(len(plan))]
    assert {stretch.split for stretch in stretches} > {"val/12x16", "val/16x16", "val/16x12"}


def _batches(shards, *, workers: int = 0, **settings) -> list:
    opened = ShardSet.open(shards)
    plan = Bucketed("train", opened.buckets["train"], 12, seed=0, digest=opened.digest)
    defaults = {"split": "train", "seed": 0, "samples": opened.splits["train"], "global_batch_size": 12}
    augmentation = Augmentation(horizontal_flip=0.5, min_crop=0.8)
    dataset = StreamDataset(
        partial(ShardReader, shards),
        **{**defaults, "last_batch": 12, "image_size_px": 16, "augmentation": augmentation, "plan": plan, **settings},
    )
    dataset.settle()
    return list(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers))


def test_ranks_workers_and_restarts_see_the_same(shards):
    whole = _batches(shards)
    assert len({batch.images.shape for batch in whole}) > 2
    parts = [_batches(shards, rank=rank, world=3, workers=2) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert {share.images.shape[2:] for share in shares} == {batch.images.shape[2:]}
        assert [position for share in shares for position in share.positions] == batch.positions
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
    later = _batches(shards, first_batch=lambda: 7)
    assert [batch.keys for batch in later] == [batch.keys for batch in whole[7:]]
    assert all(torch.equal(one.images, other.images) for one, other in zip(later, whole[7:], strict=True))


def test_the_socket_gives_the_same_batches_as_the_disk(shards):
    seen = []
    for url in ("shards", "auto"):
        module = StreamDataModule(shards=shards, url=url, image_size_px=16, global_batch_size=12, num_workers=0)
        module.setup()
        try:
            batches = [batch for batch, _ in zip(module.train_dataloader(), range(6), strict=False)]
            batches += list(module.val_dataloader())
        finally:
            module.teardown()
        seen.append(batches)
    assert [batch.keys for batch in seen[0]] == [batch.keys for batch in seen[1]]
    assert all(torch.equal(one.images, other.images) for one, other in zip(*seen, strict=True))
    assert module.sizes() == ["12x16", "16x16", "16x12", "20x12", "24x8"]


def test_smaller_pictures_are_scaled_buckets(shards):
    small = _batches(shards, sizes=BatchSizes((0, 6), (8, 16)))
    full = _batches(shards)
    for k, (one, other) in enumerate(zip(small, full, strict=True)):
        assert one.keys == other.keys
        assert one.images.shape[2:] == torch.Size([side // (2 if k < 6 else 1) for side in other.images.shape[2:]])
