"""The cache stays below its limit, forgets what was used longest ago, and stands any death of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.places import Address
from diffusion_art.shards.reader import ShardSet
from diffusion_art.shards.remote.cache import Cache, data_set_name
from tests.shards.remote.web import Web

SHARD = 100 * 1024  # of the toy, rounded up to blocks of the disk
FIRST = {0: "train-000000.tar", 32: "train-000001.tar", 64: "train-000002.tar"}  # sample: its shard
READ = """
import sys
import numpy as np
from diffusion_art.shards.places import Address, RemoteSettings
from diffusion_art.shards.reader import ShardSet
cache, url, unit, limit = sys.argv[1:]
shards = ShardSet.open(Address(url, RemoteSettings(cache=cache, unit=unit, cache_bytes=int(limit), retry_for_s=5)))
for start in (0, 64, 32, 0, 96):
    assert None not in shards.views("train", np.arange(start, min(start + 32, 100)))[2]
    print(start, flush=True)
"""


def on_disk(cache: Path) -> int:
    return sum(512 * file.stat().st_blocks for file in cache.rglob("*") if file.is_file())


def reader(cache: Path, url: str, unit: str = "shard", limit: int = 10**9) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", READ, str(cache), url, unit, str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def images(shards: ShardSet, first: int) -> list[bytes]:
    return [bytes(image or b"?") for image in shards.views("train", np.arange(first, min(first + 32, 100)))[2]]


def test_what_was_used_longest_ago_goes_first(web: Web, at: Callable[..., Address], tmp_path: Path):
    shards = ShardSet.open(at(web.url, unit="shard", cache_bytes=2 * SHARD + 60_000))
    for sample in (0, 32, 0, 64):
        shards.read("train", sample)
    there = {file.name for file in (tmp_path / "cache").rglob("*.tar")}
    assert there == {FIRST[0], FIRST[64]}


def test_what_is_no_copy_is_neither_counted_nor_removed(web: Web, at: Callable[..., Address], tmp_path: Path):
    own = tmp_path / "cache" / "thesis" / "chapter.tex", tmp_path / "cache" / data_set_name(b"") / "more" / "notes"
    for file in own:
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(2 * SHARD))
        os.utime(file, (0, 0))
    shards = ShardSet.open(at(web.url, unit="shard", cache_bytes=2 * SHARD + 60_000))
    for sample in (0, 32, 64):
        shards.read("train", sample)
    assert all(file.is_file() for file in own)
    assert len(list((tmp_path / "cache").rglob("*.tar"))) == 2


@pytest.mark.parametrize("unit", ["shard", "range"])
def test_the_cache_never_takes_more_than_its_limit(web: Web, toy: Path, tmp_path: Path, at, unit: str, monkeypatch):
    monkeypatch.setattr("diffusion_art.shards.remote.range_store.BLOCK_BYTES", 4096)
    limit = 2 * SHARD + 60_000
    shards, local = ShardSet.open(at(web.url, unit=unit, cache_bytes=limit)), ShardSet.open(toy)
    for first in (0, 32, 64, 96, 0, 64, 32):
        assert images(shards, first) == images(local, first)
        assert on_disk(tmp_path / "cache") <= limit


def test_a_data_set_that_does_not_fit_is_read_by_ranges(web: Web, tmp_path: Path, at: Callable[..., Address]):
    ShardSet.open(at(web.url, cache_bytes=150_000)).read("train", 0)
    assert list((tmp_path / "cache").rglob("*.ranges"))
    with pytest.raises(UserError, match=r"cache of 50000 bytes cannot hold .*cache_bytes higher"):
        ShardSet.open(at(web.url, unit="shard", cache_bytes=50_000)).read("train", 0)


@pytest.mark.parametrize("unit", ["shard", pytest.param("range", marks=pytest.mark.slow)])
def test_several_processes_share_it_while_it_evicts(web: Web, tmp_path: Path, unit: str):
    limit = 2 * SHARD + 60_000
    readers = [reader(tmp_path / "cache", web.url, unit, limit) for _ in range(3)]
    for one in readers:
        _, complaints = one.communicate(timeout=60)
        assert one.returncode == 0, complaints
    assert on_disk(tmp_path / "cache") <= limit


@pytest.mark.slow
def test_processes_that_want_the_same_shard_copy_it_once(web: Web, tmp_path: Path):
    web.fault = lambda file, number: 0.2
    readers = [reader(tmp_path / "cache", web.url) for _ in range(2)]
    assert [one.communicate(timeout=60) and one.returncode for one in readers] == [0, 0]
    assert web.asked["train-000000.tar"] == web.asked["train-000001.tar"] == 1


@pytest.mark.parametrize("unit", [pytest.param("shard", marks=pytest.mark.slow), "range"])
def test_a_process_killed_while_it_copies_leaves_a_cache_that_is_right(web: Web, toy: Path, tmp_path, at, unit: str):
    web.fault = lambda file, number: 30.0 if file == "train-000002.tar" and number == 0 else None
    one = reader(tmp_path / "cache", web.url, unit)
    assert one.stdout is not None
    assert one.stdout.readline() == "0\n"
    while not web.asked["train-000002.tar"]:
        time.sleep(0.01)
    os.kill(one.pid, signal.SIGKILL)
    one.communicate()
    shards, local = ShardSet.open(at(web.url, unit=unit)), ShardSet.open(toy)
    for first in (64, 0):
        assert images(shards, first) == images(local, first)
    assert web.asked["train-000000.tar"] == 1  # what was whole is still there
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_room_is_what_others_take_too(tmp_path: Path):
    cache = Cache(tmp_path / "cache", 100_000)
    first, second, third = (tmp_path / "cache" / data_set_name(name) / "file" for name in (b"1", b"2", b"3"))
    for copy in (first, second):
        with cache.claimed(copy) as file:
            cache.reserve(file, 40_000)
    with cache.claimed(third) as file:
        assert not Cache(tmp_path / "cache", 100_000).reserved(file, 0, 40_000)
    (tmp_path / "cache" / "used").write_text("what is this")
    with cache.claimed(third) as file:
        assert not cache.reserved(file, 0, 40_000)  # it was counted anew


def test_a_folder_that_cannot_be_written_is_told(web: Web, at: Callable[..., Address], tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be kept in .*data\.remote\.cache=FOLDER"):
        ShardSet.open(at(web.url, cache=str(tmp_path / "file" / "cache")))
