"""A server and trainings of shards at an address: the same bytes, no wait for others, no secrets on disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from diffusion_art.data.origin import Origin
from diffusion_art.errors import UserError
from diffusion_art.shards.places import Address, RemoteSettings
from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server import service
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.status import Scraper, _cells
from tests.shards.remote.web import Web
from tests.streaming.running import running

REQUESTS = [ReadRequest("train", 1, 32 * k, 32 * (k + 1)) for k in range(5)]


@pytest.fixture
def web(toy: Path) -> Iterator[Web]:
    server = Web(toy)
    yield server
    server.close()


def settings(tmp_path: Path, **more) -> RemoteSettings:
    return RemoteSettings(**({"cache": str(tmp_path / "cache"), "retry_for_s": 0.5} | more))


def told(reader) -> list[tuple[str, bytes, str]]:
    return [(s.key, bytes(s.image), s.caption) for answer in reader.read(REQUESTS) for s in answer]


def test_a_server_of_an_address_sends_what_one_of_the_folder_does(web: Web, toy: Path, tmp_path: Path):
    address = Address(web.url, settings(tmp_path, unit="range"))
    with ServerProcess(address) as server:
        client = StreamClient(server.url)
        assert told(client) == told(ShardReader(toy))
        assert client.info().digest == ShardSet.open(toy).digest
        client.close()


def test_a_client_is_told_in_one_sentence_when_the_store_is_gone(web: Web, tmp_path: Path):
    with ServerProcess(Address(web.url, settings(tmp_path))) as server:
        web.close()
        with pytest.raises(UserError, match=r"train-00000\d\.tar cannot be read .*\(unreadable\)"):
            told(StreamClient(server.url))


@pytest.mark.slow
def test_a_client_waits_for_as_long_as_samples_are_on_their_way(
    web: Web, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The server tells it by pings that it is not hanging."""
    monkeypatch.setattr(service, "_PING_S", 0.1)
    web.fault = lambda file, number: 2.5 if (file, number) == ("train-000001.tar", 0) else None
    with running(ShardSet.open(Address(web.url, settings(tmp_path)))) as url:
        client = StreamClient(url, timeout_s=1, retry_for_s=0.1)
        assert told(client) == told(ShardReader(toy))
        client.close()
    assert web.asked["train-000001.tar"] == 1


@pytest.mark.slow
def test_the_command_serves_an_address_and_counts_what_the_store_did(web: Web, tmp_path: Path, toy: Path):
    web.fault = lambda file, number: 503 if (file, number) == ("train-000000.tar", 0) else None
    command = [sys.executable, "-m", "diffusion_art.stream", f"data.path={web.url}", "port=0"]
    server = subprocess.Popen(
        [*command, f"data.remote.cache={tmp_path / 'cache'}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        url = next(line for line in server.stdout if "ws://" in line).split()[-1]
        assert told(StreamClient(url)) == told(ShardReader(toy))
        scrape, deadline = Scraper(url, token=None, ca=None), time.monotonic() + 10
        while not (reading := scrape()).sum("remote_retries_total") and time.monotonic() < deadline:
            time.sleep(0.05)  # figures are noted a few times a second
        assert reading.sum("remote_retries_total") == 1
        assert "1 store retries" in _cells(reading, reading)[-1]
        assert reading.sum("remote_bytes_total") > 300_000
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate()


@pytest.mark.slow
def test_the_server_of_a_training_copies_shards_before_its_first_batch_wants_them(web: Web, toy: Path, tmp_path: Path):
    origin = Origin(Address(web.url, settings(tmp_path)), url="auto")
    _, opener = origin.open("jpeg", wanted=None, decode=False, val_samples=0, agreed=lambda choose: choose())
    assert origin.server is not None
    with origin.server, closing(opener()) as reader:
        deadline = time.monotonic() + 10
        while len(list(tmp_path.glob("cache/*/*.tar"))) < len(list(toy.glob("*.tar"))) and time.monotonic() < deadline:
            time.sleep(0.02)
        web.close()
        assert told(reader) == told(ShardReader(toy))


@pytest.mark.slow
def test_a_training_on_an_address_is_the_training_on_its_folder(painter_shards: Path, tmp_path: Path, run_command):
    web = Web(painter_shards)
    try:
        losses = []
        for run, path in {"there": web.url, "here": str(painter_shards)}.items():
            words = ["+experiment=quickstart", "+debug=tiny", f"data.path={path}", "data.source=null", f"run={run}"]
            words += ["data.image_size_px=16", f"data.remote.cache={tmp_path / 'cache'}", f"paths.log_dir={tmp_path}"]
            words += ["data.url=shards"] if run == "there" else []
            done = run_command("train", *words, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            (metrics,) = tmp_path.rglob(f"{run}/metrics.csv")
            losses.append([line for line in metrics.read_text().splitlines() if "loss" in line or line])
        assert _without_times(losses[0]) == _without_times(losses[1])
    finally:
        web.close()


def _without_times(lines: list[str]) -> list[list[str]]:
    names = lines[0].split(",")
    kept = [number for number, name in enumerate(names) if name in ("step", "train/loss", "val/loss")]
    assert len(kept) >= 2
    return [[line.split(",")[number] for number in kept] for line in lines]


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("stream", "data.path"),
        pytest.param("train", "data.path", marks=pytest.mark.slow),
        pytest.param("train", "data.url", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("word", ["https://anna:hunter2@host/set", "${oc.env:SHARDS}", "[ws://a/ws,${oc.env:SHARDS}]"])
def test_an_address_with_a_secret_starts_nothing_and_is_written_nowhere(
    command: str, key: str, word: str, run_here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SHARDS", "s3://AKIA:hunter2@bucket/set")
    status, said, complaints = run_here(command, f"{key}={word}")
    assert status == 1
    assert "carries a user or password" in complaints
    assert "hunter2" not in said + complaints
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]
