"""Shards at an address are the shards of the folder: order, bytes, captions and cursors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.places import (
    Address,
    RemoteSettings,
    arguments_of,
    components_of,
    place_of,
    spec_of_arguments,
)
from diffusion_art.shards.reader import ShardSet
from diffusion_art.shards.remote.counts import totals
from diffusion_art.streaming.client.readers import ReadRequest
from diffusion_art.streaming.client.shard_reader import ShardReader
from tests.shards.remote.web import Web

REQUESTS = [ReadRequest("train", 3, 64 * k, 64 * (k + 1)) for k in range(4)]


def read(shards: ShardSet, split: str) -> list[tuple[bytes, bytes]]:
    _, captions, images = shards.views(split, np.arange(shards.splits[split]))
    assert all(image is not None for image in images)
    return [(bytes(caption), bytes(image)) for caption, image in zip(captions, images, strict=True)]


def samples(spec) -> list[tuple[str, bytes, str]]:
    return [(s.key, bytes(s.image), s.caption) for answer in ShardReader(spec).read(REQUESTS) for s in answer]


@pytest.mark.parametrize("unit", [pytest.param("shard", marks=pytest.mark.slow), "range"])
def test_a_bucket_reads_as_the_folder_does(bucket: str, toy: Path, at: Callable[..., Address], unit: str):
    local, remote = ShardSet.open(toy), ShardSet.open(at(bucket, unit=unit))
    assert remote.digest == local.digest
    for split in local.splits:
        assert read(remote, split) == read(local, split)
    assert remote.metadata("train", 7) == local.metadata("train", 7)
    assert remote.read("val", 2) == local.read("val", 2)
    assert samples(at(bucket, unit=unit)) == samples(toy)


def test_a_store_may_send_the_checksum_of_the_whole_with_a_part(web: Web, toy: Path, at, monkeypatch):
    for name, value in {
        "ENDPOINT_URL": web.url.rpartition("/")[0],
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    web.checksums = True
    remote = ShardSet.open(at(f"s3://{toy.name}", unit="range"))
    assert read(remote, "train") == read(ShardSet.open(toy), "train")
    assert any(asked for _, asked in web.ranges)


@pytest.mark.parametrize("unit", ["shard", pytest.param("range", marks=pytest.mark.slow)])
def test_what_was_copied_is_not_asked_for_again(web: Web, at: Callable[..., Address], unit: str):
    first = read(ShardSet.open(at(web.url, unit=unit)), "train")
    before = dict(web.asked)
    assert read(ShardSet.open(at(web.url, unit=unit)), "train") == first
    again = {file for file, times in web.asked.items() if times > before[file]}
    assert again == {"manifest.json"}


def copied(shards: ShardSet, *, within_s: float = 10.0) -> list[str]:
    """The files of shards that lie in the cache, once all do."""
    wanted = {info.file for infos in shards.manifest.shards.values() for info in infos}
    deadline = time.monotonic() + within_s
    while (there := wanted & {file.name for file in shards.folder.iterdir()}) < wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return sorted(there)


def test_all_shards_may_be_copied_before_anybody_asks(web: Web, toy: Path, at: Callable[..., Address]):
    remote = ShardSet.open(at(web.url))
    remote.copy_ahead()
    assert copied(remote) == sorted(file.name for file in toy.glob("*.tar"))
    asked = [file for file, _ in web.ranges if file.endswith(".tar")]
    assert asked[0].startswith("train-")
    assert read(remote, "train") == read(ShardSet.open(toy), "train")
    assert [file for file, _ in web.ranges if file.endswith(".tar")] == asked


@pytest.mark.parametrize(
    ("settings", "beside_bytes"),
    [({"unit": "range"}, 0), ({"unit": "shard", "cache_bytes": 100_000}, 0), ({"cache_bytes": 2**30}, 2**30)],
)
def test_nothing_is_copied_ahead_where_it_would_not_stay(web: Web, at: Callable[..., Address], settings, beside_bytes):
    remote = ShardSet.open(at(web.url, **settings))
    before = set(threading.enumerate())
    remote.copy_ahead(beside_bytes=beside_bytes)
    assert "shards ahead" not in {thread.name for thread in set(threading.enumerate()) - before}
    assert not [file for file in web.asked if file.endswith(".tar")]


def test_what_cannot_be_copied_ahead_is_told_to_who_reads_it(web: Web, at: Callable[..., Address]):
    web.fault = lambda file, number: 404 if file == "train-000000.tar" else None
    remote = ShardSet.open(at(web.url))
    remote.copy_ahead()
    with pytest.raises(UserError, match=r"train-000000\.tar"):
        read(remote, "train")


def test_opening_reads_no_shard(web: Web, at: Callable[..., Address]):
    ShardSet.open(at(web.url))
    assert set(web.asked) == {"manifest.json", "index-train.npy", "index-val.npy"}


def test_ranges_of_a_large_shard_are_read_at_once(web: Web, at: Callable[..., Address], monkeypatch):
    monkeypatch.setattr("diffusion_art.shards.remote.copies.PART_BYTES", 10_000)
    web.fault = lambda file, number: 0.05
    shards = ShardSet.open(at(web.url, connections=8))
    assert shards.read("train", 0).key == "0000000000000000"
    assert 4 <= web.most_at_once <= 8
    assert len([file for file, _ in web.ranges if file == "train-000000.tar"]) == 10


def test_only_blocks_with_samples_that_are_asked_for_are_copied(web: Web, at: Callable[..., Address], monkeypatch):
    monkeypatch.setattr("diffusion_art.shards.remote.range_store.BLOCK_BYTES", 4096)
    shards = ShardSet.open(at(web.url, unit="range"))
    before = totals()["bytes"]
    wanted = np.array([0, 31, 40])
    _, _, images = shards.views("train", wanted)
    assert all(image is not None for image in images)
    assert totals()["bytes"] - before <= 3 * 2 * 4096


def test_a_server_without_ranges_sends_whole_files(web: Web, toy: Path, at: Callable[..., Address]):
    web.ranged = False
    shards = ShardSet.open(at(web.url))
    assert read(shards, "train") == read(ShardSet.open(toy), "train")
    assert web.asked["train-000000.tar"] == 1


def test_a_folder_and_an_address_mix(bucket: str, tmp_path: Path, at: Callable[..., Address]):
    from tests.shards.toy import write_toy

    write_toy(tmp_path / "other", seed=5)
    spec = [{"path": str(tmp_path / "other"), "weight": 0.5}, {"path": at(bucket), "weight": 0.5}]
    mixed = open_shards(spec)
    assert sum(mixed.splits.values()) == 220
    numbers = mixed.samples("train", 1, 0, 0, 100)
    coming = mixed.prefetch("train", numbers)
    assert coming is not None
    coming.result(timeout=30)
    assert None not in mixed.views("train", numbers)[2]


def test_an_address_goes_to_another_process_with_its_settings():
    address = Address("s3://b/set", RemoteSettings(cache="/c", cache_bytes=7, unit="range"))
    words = arguments_of(components_of(address))
    (found,) = components_of(spec_of_arguments(words[:1], None, None, words[words.index("--remote") + 1]))
    assert (found.path, found.path.settings) == (address, address.settings)


def test_a_file_address_is_a_folder(toy: Path):
    assert place_of(f"file://{toy}") == toy
    assert ShardSet.open(f"file://{toy}").digest == ShardSet.open(toy).digest
