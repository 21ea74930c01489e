"""Shards whose pictures keep their shape: built, told, read by bucket, mixed, and checked."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import simplejpeg

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.lint.lint import lint
from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sizes import size_named
from diffusion_art.sources.detect import open_source
from diffusion_art.streaming.answer import describe
from diffusion_art.streaming.wire import pack_message, unpack_message
from tests.fakes_buckets import SHAPES, bucketed_shards, write_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("buckets") / "shards"
    bucketed_shards(folder)
    return folder


def test_every_picture_is_stored_at_the_size_of_its_bucket(folder):
    shards = ShardSet.open(folder)
    for split, counts in shards.buckets.items():
        assert sum(counts.values()) == shards.splits[split]
        seen = []
        for name, count in counts.items():
            members = shards.samples(f"{split}/{name}", None, 0, 0, count)
            seen += members.tolist()
            _, _, images = shards.views(f"{split}/{name}", members)
            for image in images:
                height, width, *_ = simplejpeg.decode_jpeg_header(bytes(image))
                assert (width, height) == size_named(name)
        assert sorted(seen) == list(range(shards.splits[split]))
    assert len(shards.buckets["train"]) > 3


def test_a_bucket_is_shuffled_anew_in_each_epoch(folder):
    shards = ShardSet.open(folder)
    name, count = max(shards.buckets["train"].items(), key=lambda item: item[1])
    first, second, again = (shards.samples(f"train/{name}", 0, epoch, 0, count).tolist() for epoch in (0, 1, 0))
    assert sorted(first) == sorted(second) == shards.members("train", name).tolist()
    assert first == again != second


def test_the_table_is_a_function_of_the_shards(folder, tmp_path):
    manifest = bucketed_shards(tmp_path / "again")
    before = Manifest.load(folder)
    assert (manifest.digest, manifest.buckets) == (before.digest, before.buckets)
    assert manifest.buckets["train"].table.sha256 == before.buckets["train"].table.sha256
    assert json.loads((folder / MANIFEST_FILE).read_text())["version"] == 2
    assert lint(folder, pictures=True, workers=1).findings.errors == 0


def test_other_steps_are_another_build_and_squares_tell_of_no_buckets(folder, tmp_path):
    source = open_source(folder.with_name("shards-pictures"))
    with pytest.raises(UserError, match="bucket_step_px"):
        build_shards(source, folder, image_size_px=16, bucket_step_px=2, val_fraction=0.2, progress=False)
    with pytest.raises(UserError, match="fit=letterbox is for squares"):
        build_shards(source, tmp_path / "a", image_size_px=16, bucket_step_px=4, fit="letterbox", progress=False)
    square = build_shards(source, tmp_path / "square", image_size_px=16, workers=1, progress=False)
    assert "bucket_step_px" not in square.extra["settings"]
    assert "buckets" not in (tmp_path / "square" / MANIFEST_FILE).read_text()
    assert "buckets" not in pack_message(describe(ShardSet.open(tmp_path / "square")))
    with pytest.raises(UserError, match="build both in one way"):
        open_shards([folder, tmp_path / "square"])


def test_a_server_tells_of_the_buckets(folder):
    info = describe(ShardSet.open(folder))
    assert unpack_message(pack_message(info)) == info


def test_folders_with_buckets_are_mixed_bucket_by_bucket(folder, tmp_path):
    bucketed_shards(tmp_path / "more", 20, first=100)
    mixed = open_shards([folder, tmp_path / "more"])
    assert sum(mixed.buckets["train"].values()) == mixed.splits["train"]
    for name, count in mixed.buckets["train"].items():
        members = mixed.samples(f"train/{name}", 3, 0, 0, count)
        assert len(np.unique(members)) == count
        for image in mixed.views(f"train/{name}", members)[2]:
            height, width, *_ = simplejpeg.decode_jpeg_header(bytes(image))
            assert (width, height) == size_named(name)


@pytest.mark.slow
def test_in_a_mixture_by_weight_each_bucket_and_folder_has_its_share(folder, tmp_path):
    bucketed_shards(tmp_path / "more", 20, first=100)
    mixed = open_shards([{"path": folder, "weight": 3}, {"path": tmp_path / "more", "weight": 1}])
    first, second = (ShardSet.open(path) for path in (folder, tmp_path / "more"))
    assert unpack_message(pack_message(describe(mixed))) == describe(mixed)
    shares = mixed.bucket_shares["train"]
    own = first.splits["train"]
    for name, count in mixed.buckets["train"].items():
        ours, theirs = (len(part.members("train", name)) for part in (first, second))
        parts = 0.75 * ours / own, 0.25 * theirs / second.splits["train"]
        assert shares[name] / sum(shares.values()) == pytest.approx(sum(parts), abs=1e-3)
        seen = np.concatenate(
            [mixed.samples(f"train/{name}", 3, epoch, 0, count) for epoch in range(3000 // count + 1)]
        )
        assert np.mean(seen[:2000] < own) == pytest.approx(parts[0] / sum(parts), abs=1e-3)
        assert len(np.unique(seen)) == count


def test_a_folder_of_small_weight_and_rare_buckets_has_no_more_than_its_weight(tmp_path):
    for name, shapes, first in (("squares", ((40, 40),), 0), ("rare", SHAPES[1:4], 100)):
        source = open_source(write_pictures(tmp_path / f"{name}-pictures", 12, first=first, shapes=shapes))
        build_shards(source, tmp_path / name, image_size_px=16, bucket_step_px=4, val_fraction=0, progress=False)
    mixed = open_shards([{"path": tmp_path / "squares", "weight": 0.999}, {"path": tmp_path / "rare", "weight": 0.001}])
    shares, own = mixed.bucket_shares["train"], ShardSet.open(tmp_path / "rare").buckets["train"]
    total = sum(shares.values())
    assert len(own) == 3
    for name, count in own.items():
        assert shares[name] / total == pytest.approx(0.001 * count / 12, rel=0.01)


def test_a_run_takes_the_buckets_of_a_mixture_by_their_shares(folder, tmp_path):
    bucketed_shards(tmp_path / "more", 20, first=100)
    spec = [{"path": folder, "weight": 0.2}, {"path": tmp_path / "more", "weight": 0.8}]
    mixed = open_shards(spec)
    shares = mixed.bucket_shares["train"]
    batches = sum(shares.values())
    data = StreamDataModule(shards=spec, url="shards", image_size_px=16, global_batch_size=4, num_workers=0)
    data.setup()
    plan = data.train_dataloader().dataset.plan
    taken = Counter(plan(k).split for k in range(64 * 64))
    for name, share in shares.items():
        assert taken[f"train/{name}"] / (64 * 64) == pytest.approx(share / batches, abs=2e-3)
    data.teardown()


def test_a_table_that_lies_is_found_out(tmp_path):
    manifest = bucketed_shards(tmp_path / "shards", 12, val_fraction=0.0)
    path = tmp_path / "shards" / manifest.buckets["train"].table.file
    table = np.load(path)
    table[:] = 10**9
    np.save(path, table)
    shards = ShardSet.open(tmp_path / "shards")
    with pytest.raises(ValueError, match="names sample 1000000000 of 12"):
        shards.samples(f"train/{next(iter(shards.buckets['train']))}", 0, 0, 0, 1)
    np.save(path, table[:-1])
    with pytest.raises(UserError, match="does not match its manifest"):
        ShardSet.open(tmp_path / "shards")


def test_a_build_with_buckets_is_replaced_by_one_without(tmp_path):
    bucketed_shards(tmp_path / "shards", count=12)
    source = open_source(tmp_path / "shards-pictures")
    asked = {"image_size_px": 16, "val_fraction": 0.2, "workers": 1, "progress": False}
    squares = build_shards(source, tmp_path / "shards", overwrite=True, **asked)
    assert sum(squares.splits.values()) == 12
    assert not list((tmp_path / "shards").glob("buckets-*"))
