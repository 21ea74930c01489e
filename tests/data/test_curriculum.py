"""Progressive resolution: the size of a batch by its number, its pictures, and memory for several sizes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

from diffusion_art.data.curriculum import Curriculum
from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.data.dataset import StreamDataset
from diffusion_art.data.plan import BatchSizes
from diffusion_art.data.transforms import Augmentation
from diffusion_art.data.workers import Ring
from diffusion_art.errors import UserError
from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.client.shard_reader import ShardReader

THREE = [{"until": 0.4, "shrink": 4}, {"until": 0.75, "shrink": 2}]


def test_the_number_of_a_batch_says_its_size():
    sizes = Curriculum(stages=THREE).batch_sizes(128, batches=20)
    assert [sizes(k) for k in range(20)] == [32] * 8 + [64] * 7 + [128] * 5
    assert sizes(10**6) == 128
    assert [Curriculum().batch_sizes(64, batches=20)(k) for k in (0, 19)] == [64, 64]


@pytest.mark.parametrize("per_step", [1, 2, 3])
def test_the_batches_of_a_step_have_one_size(per_step):
    """Also where a share of the steps is no whole number of them, in binary or at all."""
    stages = [{"until": 0.3, "shrink": 4}, {"until": 0.7, "shrink": 2}]
    sizes = Curriculum(stages=stages).batch_sizes(64, batches=10 * per_step, batches_per_step=per_step)
    by_step = [{sizes(step * per_step + part) for part in range(per_step)} for step in range(10)]
    assert by_step == [{16}] * 3 + [{32}] * 4 + [{64}] * 3


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([{"until": 0.5, "shrink": 2}, {"until": 0.5, "shrink": 1}], r"rising shares .* not \[0.5, 0.5\]"),
        ([{"until": 1.0, "shrink": 2}], "rising shares"),
        ([{"until": 0.0, "shrink": 2}], "rising shares"),
        ([{"until": 0.5, "shrink": 0.5}], "shrink=0.5 must be a whole number"),
        ([{"until": 0.5, "size": 32}], "a stage of the curriculum is {until: SHARE, shrink: NUMBER}"),
    ],
)
def test_impossible_stages_are_refused(stages, said):
    with pytest.raises(UserError, match=said):
        Curriculum(stages=stages)


def test_a_size_that_cannot_be_shrunk_is_refused():
    with pytest.raises(UserError, match="pictures of 50 px cannot shrink by 4"):
        Curriculum(stages=THREE).batch_sizes(50, batches=8)


# ---------------------------------------------------------------------- in the data set


STAGES = BatchSizes((0, 7, 13), (4, 8, 16))


def _dataset(shards, *, sizes=STAGES, **settings) -> StreamDataset:
    defaults = {"split": "train", "seed": 0, "samples": ShardSet.open(shards).splits["train"], "image_size_px": 16}
    defaults |= {"augmentation": Augmentation(horizontal_flip=0.5), "global_batch_size": 8, "last_batch": 20}
    return StreamDataset(partial(ShardReader, shards), sizes=sizes, **{**defaults, **settings})


def _loaded(dataset: StreamDataset, workers: int) -> list:
    if workers:
        dataset.ring = Ring(workers=workers, slots=3)
    return [batch.images.clone() for batch in DataLoader(dataset, batch_size=None, num_workers=workers)]


def test_smaller_pictures_are_the_means_of_the_full_ones(painter_shards):
    """Same samples, same order, same mirror images; a level of 255 or two is what a codec's filters may differ by."""
    full, small = _dataset(painter_shards, sizes=None), _dataset(painter_shards)
    for k, (one, other) in enumerate(zip(full, small, strict=True)):
        assert (one.keys, one.captions, one.cursor) == (other.keys, other.captions, other.cursor)
        size = 4 if k < 7 else 8 if k < 13 else 16
        assert other.images.shape == (8, 3, size, size)
        means = torch.nn.functional.avg_pool2d(one.images.float(), 16 // size)
        off = (means - other.images.float()).abs()
        assert off.mean() < 2.0 if size < 16 else not off.any()


@pytest.mark.parametrize("workers", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_workers_and_a_resume_across_a_border_change_nothing(painter_shards, workers):
    whole = _loaded(_dataset(painter_shards), 0)
    assert [len(images[0, 0]) for images in whole] == [4] * 7 + [8] * 6 + [16] * 7
    for cut in (0, 5, 7, 12):
        rest = _dataset(painter_shards, first_batch=lambda cut=cut: cut)
        rest.settle()
        for one, other in zip(_loaded(rest, workers), whole[cut:], strict=True):
            assert torch.equal(one, other)


def test_memory_is_used_again_within_a_size_and_held_batches_keep_theirs(painter_shards):
    dataset = _dataset(painter_shards, last_batch=26, sizes=BatchSizes((0, 13), (8, 16)))
    plain = list(_dataset(painter_shards, last_batch=26, sizes=BatchSizes((0, 13), (8, 16))))
    dataset.ring = Ring(workers=1, slots=6)  # one is held, one in use, three are on their way
    held, places = [], {8: set(), 16: set()}
    for k, batch in enumerate(DataLoader(dataset, batch_size=None, num_workers=1)):
        assert torch.equal(batch.images, plain[k].images)
        places[batch.images.shape[-1]].add(batch.images.data_ptr())
        if k == 12:  # the last one of the first size, while the second takes over the slots
            held.append(batch)
    assert torch.equal(held[0].images, plain[12].images)
    assert len(places[8]) <= 6
    assert len(places[16]) <= 6


@pytest.mark.parametrize("codec", ["jpeg", "u8"])
def test_the_data_module_trains_on_stages_and_validates_at_full_size(painter_shards, codec, tmp_path):
    module = StreamDataModule(
        shards=painter_shards,
        url="shards",
        payload=codec,
        cache=str(tmp_path),
        image_size_px=16,
        global_batch_size=12,
        val_samples=12,
        num_workers=0,
        curriculum=Curriculum(stages=[{"until": 0.5, "shrink": 2}]),
    )
    module.prepare_data()
    module.setup()
    train = [batch.images.shape[-1] for batch in module.train_dataloader()]
    assert train == [8] * (len(train) // 2) + [16] * (len(train) - len(train) // 2)
    assert [batch.images.shape[-1] for batch in module.val_dataloader()] == [16]
    module.teardown()
