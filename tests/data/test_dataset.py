"""What a run sees: every sample once per epoch, the same on any number of ranks, workers and restarts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import simplejpeg
import torch
from lightning.pytorch import Trainer

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.data.dataset import StreamDataset
from diffusion_art.data.transforms import Augmentation
from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.painter import Painter
from diffusion_art.streaming.client.shard_reader import ShardReader


def _dataset(shards, **settings) -> StreamDataset:
    count = ShardSet.open(shards).splits["train"]
    defaults = {
        "split": "train",
        "seed": 0,
        "samples": count,
        "global_batch_size": 12,
        "last_batch": 24,
        "image_size_px": 16,
        "augmentation": Augmentation(horizontal_flip=0.5, min_crop=0.8),
    }
    return StreamDataset(partial(ShardReader, shards), **{**defaults, **settings})


def _loaded(dataset: StreamDataset, workers: int) -> list:
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers)
    return list(loader)


def test_every_sample_once_per_epoch(painter_shards):
    dataset = _dataset(painter_shards, augmentation=None)
    keys = [key for batch in dataset for key in batch.keys]
    epochs = len(keys) // dataset.samples
    assert epochs >= 2
    for epoch in range(epochs):
        assert len(set(keys[epoch * dataset.samples : (epoch + 1) * dataset.samples])) == dataset.samples
    assert keys[: dataset.samples] != keys[dataset.samples : 2 * dataset.samples]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(painter_shards, workers):
    plain, parallel = list(_dataset(painter_shards)), _loaded(_dataset(painter_shards), workers)
    assert len(plain) == len(parallel) == 24
    for one, other in zip(plain, parallel, strict=True):
        assert (one.keys, one.captions, one.cursor) == (other.keys, other.captions, other.cursor)
        assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_each_global_batch(painter_shards, world):
    whole = list(_dataset(painter_shards))
    shares = [list(_dataset(painter_shards, rank=rank, world=world)) for rank in range(world)]
    for k, batch in enumerate(whole):
        parts = [share[k] for share in shares]
        assert [len(part) for part in parts] == [12 // world] * world
        assert [key for part in parts for key in part.keys] == batch.keys
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


def test_a_resumed_dataset_goes_on_where_it_stopped(painter_shards):
    whole = list(_dataset(painter_shards))
    for cut, workers in ((7, 0), (11, 2)):
        rest = _dataset(painter_shards, first_batch=lambda cut=cut: cut)
        rest.settle()
        resumed = _loaded(rest, workers)
        assert [batch.keys for batch in resumed] == [batch.keys for batch in whole[cut:]]
        assert [batch.cursor for batch in resumed] == list(range(cut + 1, 25))
        assert len(rest) == len(whole)  # the total of the run, so that progress bars are true


def test_validation_is_read_once_in_stored_order_with_a_short_last_batch(painter_shards):
    shard_set = ShardSet.open(painter_shards)
    count = shard_set.splits["val"]
    dataset = _dataset(
        painter_shards, split="val", seed=None, samples=count, last_batch=-(-count // 12), augmentation=None
    )
    keys = [key for batch in dataset for key in batch.keys]
    assert keys == [shard_set.key("val", i) for i in range(count)]
    assert not set(keys) & {shard_set.key("train", i) for i in range(shard_set.splits["train"])}


def _spoil(folder, split: str, numbers) -> list[str]:
    """Overwrite the bytes of these pictures in place, so that sizes still agree; their keys."""
    shards = ShardSet.open(folder)
    samples = [shards.read(split, number) for number in numbers]
    pictures, keys = [bytes(sample.image) for sample in samples], [sample.key for sample in samples]
    for tar in folder.glob(f"{split}-*.tar"):
        data = tar.read_bytes()
        for picture in pictures:
            data = data.replace(picture, bytes(len(picture)))
        tar.write_bytes(data)
    return keys


def _build(folder, *, count: int, val_fraction: float = 0.0) -> None:
    painter = Painter(count=count, image_size_px=16)
    build_shards(painter, folder, image_size_px=16, val_fraction=val_fraction, progress=False, workers=1)


@pytest.fixture
def shards_with_a_bad_picture(tmp_path):
    """Shards with one training picture that cannot be read, and its key."""
    out = tmp_path / "shards"
    _build(out, count=40)
    (key,) = _spoil(out, "train", [5])
    return out, key


def test_a_bad_picture_is_replaced_the_same_way_on_every_rank(shards_with_a_bad_picture, caplog):
    shards, bad = shards_with_a_bad_picture
    settings = {"global_batch_size": 8, "last_batch": 5, "augmentation": None}
    whole = [key for batch in _dataset(shards, **settings) for key in batch.keys]
    assert bad in caplog.text
    assert bad not in whole
    assert len(whole) == 40
    assert len(set(whole)) == 39
    halves = [list(_dataset(shards, rank=rank, world=2, **settings)) for rank in (0, 1)]
    assert whole == [key for pair in zip(*halves, strict=True) for batch in pair for key in batch.keys]


def test_too_many_bad_pictures_stop_the_run(shards_with_a_bad_picture):
    shards, bad = shards_with_a_bad_picture
    with pytest.raises(UserError, match=bad):
        list(_dataset(shards, global_batch_size=8, last_batch=5, max_bad=0))


def test_a_bad_picture_that_comes_again_is_one(shards_with_a_bad_picture):
    shards, bad = shards_with_a_bad_picture
    dataset = _dataset(shards, global_batch_size=8, last_batch=20, max_bad=1)  # four times through
    assert len(list(dataset)) == 20
    assert dataset.bad == {bad}


@pytest.mark.parametrize(("split", "seed"), [("val", None), ("train", 0)])
def test_a_split_without_a_readable_picture_ends_the_run(tmp_path, split, seed):
    _build(tmp_path, count=40, val_fraction=0.2)
    samples = ShardSet.open(tmp_path).splits[split]
    _spoil(tmp_path, split, range(samples))
    opened = []

    def open_reader() -> ShardReader:
        opened.append(1)
        assert len(opened) < 200, "it reads on and on"
        return ShardReader(tmp_path)

    settings = {"samples": samples, "global_batch_size": 4, "last_batch": 2, "image_size_px": 16}
    dataset = StreamDataset(open_reader, split=split, seed=seed, **settings)
    with pytest.raises(UserError, match=rf"none of {samples} pictures of split `{split}` can be read"):
        list(dataset)


def test_one_readable_picture_is_enough(tmp_path):
    """However the epochs are shuffled, and wherever in them a batch begins."""
    _build(tmp_path, count=3)
    bad = _spoil(tmp_path, "train", [0, 1])
    batches = _dataset(tmp_path, global_batch_size=2, last_batch=20, augmentation=None)
    seen = [key for batch in batches for key in batch.keys]
    assert len(seen) == 40
    assert len(set(seen)) == 1
    assert not set(seen) & set(bad)


def test_socket_and_disk_give_identical_batches(painter_shards):
    def batches(url):
        module = StreamDataModule(
            shards=painter_shards,
            url=url,
            image_size_px=16,
            global_batch_size=12,
            num_workers=0,
        )
        module.setup()
        try:
            return [batch for batch, _ in zip(module.train_dataloader(), range(10))], module.info.digest
        finally:
            module.teardown()

    (direct, one), (streamed, other) = batches("shards"), batches("auto")
    assert one == other
    for left, right in zip(direct, streamed, strict=True):
        assert left.keys == right.keys
        assert torch.equal(left.images, right.images)


def test_a_cursor_of_other_data_is_refused(painter_shards):
    def module(**settings):
        defaults = {"image_size_px": 16, "global_batch_size": 12, "num_workers": 0, "url": "shards"}
        made = StreamDataModule(shards=painter_shards, **{**defaults, **settings})
        made.setup()
        return made

    first = module()
    first.cursor = 4
    state = first.state_dict()
    again = module()
    again.load_state_dict(state)
    assert again.cursor == 4
    with pytest.raises(UserError, match=r"data\.global_batch_size=12"):
        module(global_batch_size=6).load_state_dict(state)
    with pytest.raises(UserError, match="seed=0"):
        module(seed=9).load_state_dict(state)
    with pytest.raises(UserError, match="data set `painter`"):
        module().load_state_dict({**state, "digest": "f" * 64})


def test_other_captions_than_the_checkpoints_are_told_of(painter_shards, caplog):
    caplog.set_level("INFO")
    made = StreamDataModule(shards=painter_shards, image_size_px=16, global_batch_size=12, num_workers=0, url="shards")
    made.setup()
    state = made.state_dict()
    made.load_state_dict(state)
    made.load_state_dict({name: value for name, value in state.items() if name != "caption_template"})
    assert "captions" not in caplog.text
    made.load_state_dict({**state, "caption_template": "{style}"})
    assert "was trained with captions {style}, and this run goes on with captions {artist} / {title}" in caplog.text


def test_a_cursor_counted_in_other_steps_is_refused(painter_shards, tmp_path):
    def module(parts):
        made = StreamDataModule(
            shards=painter_shards, image_size_px=16, global_batch_size=12, num_workers=0, url="shards"
        )
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        made.trainer = Trainer(accelerator="cpu", accumulate_grad_batches=parts, default_root_dir=tmp_path, **quiet)
        made.setup()
        return made

    first = module(2)
    first.cursor = 4
    state = first.state_dict()
    again = module(2)
    again.load_state_dict(state)
    assert again.cursor == 4
    told = r"trainer\.accumulate_grad_batches=2, this run has %s.* Resume with trainer\.accumulate_grad_batches=2"
    for other in (1, 3):
        with pytest.raises(UserError, match=told % other):
            module(other).load_state_dict(state)
    del state["accumulate_grad_batches"]  # as in checkpoints that were written before
    module(1).load_state_dict(state)


def test_pictures_travel_as_bytes_and_become_floats_on_the_device(painter_shards):
    """The training module gets the numbers that decoding and dividing in double precision gives, rounded."""
    module = StreamDataModule(
        shards=painter_shards, url="shards", image_size_px=16, global_batch_size=12, num_workers=1
    )
    module.setup()
    loaded = next(iter(module.train_dataloader()))
    assert loaded.images.shape == (12, 3, 16, 16)
    assert loaded.images.dtype == torch.uint8
    shards = ShardSet.open(painter_shards)
    stored = {sample.key: sample.image for sample in (shards.read("train", i) for i in range(shards.splits["train"]))}
    batch = module.on_after_batch_transfer(loaded, 0)
    assert (batch.keys, batch.captions, batch.cursor) == (loaded.keys, loaded.captions, loaded.cursor)
    for key, image in zip(batch.keys, batch.images, strict=True):
        expected = simplejpeg.decode_jpeg(stored[key], "RGB").transpose(2, 0, 1) / 127.5 - 1.0
        np.testing.assert_allclose(image.numpy(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_codecs_and_ways_give_identical_batches(painter_shards, tmp_path, workers):
    """Also fitted to another size than the stored one."""

    def batches(url, codec, crc=True):
        module = StreamDataModule(
            shards=painter_shards,
            url=url,
            image_size_px=12,
            global_batch_size=12,
            num_workers=workers,
            augmentation=Augmentation(horizontal_flip=0.5, min_crop=0.8),
            payload=codec,
            crc=crc,
            cache=str(tmp_path),
        )
        module.prepare_data()
        module.setup()
        try:
            return [batch for batch, _ in zip(module.train_dataloader(), range(6))]
        finally:
            module.teardown()

    plain = batches("shards", "jpeg")
    for other in (batches("shards", "u8"), batches("auto", "u8"), batches("auto", "jpeg", crc=False)):
        for left, right in zip(plain, other, strict=True):
            assert (left.keys, left.captions, left.cursor) == (right.keys, right.captions, right.cursor)
            assert torch.equal(left.images, right.images)


def test_an_unknown_codec_is_refused(painter_shards):
    with pytest.raises(UserError, match=r"data\.payload=webp is not one of jpeg, u8"):
        StreamDataModule(shards=painter_shards, image_size_px=16, global_batch_size=12, num_workers=0, payload="webp")


def test_bad_pictures_are_replaced_alike_whatever_the_codec(shards_with_a_bad_picture, tmp_path):
    shards, bad = shards_with_a_bad_picture
    settings = {"global_batch_size": 8, "last_batch": 10, "augmentation": None}
    stored = list(_dataset(shards, **settings))
    reader = partial(ShardReader, shards, codec="u8", cache=tmp_path)
    decoded = list(StreamDataset(reader, split="train", seed=0, samples=40, image_size_px=16, codec="u8", **settings))
    assert bad not in [key for batch in decoded for key in batch.keys]
    for left, right in zip(stored, decoded, strict=True):
        assert left.keys == right.keys
        assert torch.equal(left.images, right.images)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_complaint_from_a_worker_is_one_sentence(shards_with_a_bad_picture, workers):
    shards, bad = shards_with_a_bad_picture
    module = StreamDataModule(
        shards=shards,
        url="shards",
        image_size_px=16,
        global_batch_size=40,
        num_workers=workers,
        max_bad=0,
    )
    module.setup()
    with pytest.raises(UserError) as raised:
        next(iter(module.train_dataloader()))
    assert bad in str(raised.value)
    assert "\n" not in str(raised.value)
