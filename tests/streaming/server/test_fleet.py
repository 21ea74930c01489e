"""Several server processes on one port: balance, replacement, one sum of metrics."""

import json
import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

from diffusion_art.errors import UserError
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.fleet import _delay_s
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.run import serve
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.wire import SUBPROTOCOL
from tests.shards.toy import write_toy
from tests.streaming.running import figures_of, wait_until


def children(server: ServerProcess) -> dict[int, psutil.Process]:
    return {child.pid: child for child in psutil.Process(server.pid).children()}


def clients_of(process: psutil.Process) -> int:
    return sum(line.status == psutil.CONN_ESTABLISHED for line in process.net_connections(kind="tcp"))


def talk(url: str) -> ClientConnection:
    return connect(url, subprotocols=[SUBPROTOCOL], compression=None, proxy=None)


@pytest.fixture(scope="module")
def fleet(toy: Path):
    with ServerProcess(toy, processes=3) as server:
        yield server


def batches(count: int, *, size: int = 16) -> list[ReadRequest]:
    return [ReadRequest("train", 0, size * k, size * (k + 1)) for k in range(count)]


def test_connections_are_shared_out_evenly(fleet: ServerProcess):
    with ExitStack() as stack:
        lines = [stack.enter_context(talk(fleet.url)) for _ in range(9)]
        assert [clients_of(child) for child in children(fleet).values()] == [3, 3, 3]
        for line in lines[:3]:
            line.close()
        wait_until(lambda: sum(clients_of(child) for child in children(fleet).values()) == 6)
        for _ in range(3):
            stack.enter_context(talk(fleet.url))
        assert [clients_of(child) for child in children(fleet).values()] == [3, 3, 3]


def test_any_process_answers_and_all_count_in_one_sum(toy: Path, fleet: ServerProcess):
    before = figures_of(fleet.url)
    expected = list(ShardReader(toy).read(batches(10)))
    for _ in range(6):
        assert list(StreamClient(fleet.url).read(batches(10))) == expected
    sent = before["samples_total", "v2"] + 6 * 160
    wait_until(lambda: figures_of(fleet.url)["samples_total", "v2"] >= sent)  # an answer is counted once it is sent
    after = [figures_of(fleet.url) for _ in range(3)]  # by each of them
    for figures in after:
        assert figures["samples_total", "v2"] - before["samples_total", "v2"] == 6 * 160
        assert figures["processes", ""] == 3


def test_a_killed_process_is_replaced_and_nothing_is_lost_or_repeated(toy: Path, fleet: ServerProcess):
    before = figures_of(fleet.url)
    killed: list[int] = []
    expected = ShardReader(toy).read(batches(300))
    for k, samples in enumerate(StreamClient(fleet.url).read(batches(300), window=2)):
        assert samples == next(expected)
        if k in (1, 100, 250):  # each time the one that serves us
            killed.append(next(pid for pid, child in children(fleet).items() if clients_of(child)))
            os.kill(killed[-1], signal.SIGKILL)
            wait_until(lambda: len(children(fleet)) == 3 and not set(killed) & set(children(fleet)))
            wait_until(lambda: figures_of(fleet.url)["processes", ""] == 3)
    wait_until(lambda: figures_of(fleet.url)["process_starts_total", ""] - before["process_starts_total", ""] == 3)
    after = figures_of(fleet.url)
    uncounted = len(killed) * 16  # a process may die between its answer and the count of it
    assert after["samples_total", "v2"] - before["samples_total", "v2"] >= 300 * 16 - uncounted
    wait_until(lambda: figures_of(fleet.url)["connections_open", "v2"] == 0)  # closed by us, which it has yet to see


def ask(connection: ClientConnection, kind: str, **payload) -> dict:
    """A request of protocol v1, and its answer."""
    message = {"type": kind, "version": "1.0"} if kind == "handshake" else {"type": kind, "payload": payload}
    connection.send(json.dumps(message))
    return json.loads(connection.recv())


def ids_of(answer: dict) -> list[str]:
    return [sample["sample_id"] for sample in answer["payload"] if sample != "terminate"]


def test_v1_clients_share_a_pass_whichever_process_they_meet(painter_shards: Path):
    with ServerProcess(painter_shards, processes=2) as server, ExitStack() as stack:
        lines = [
            stack.enter_context(connect(server.url, compression=None, proxy=None, max_size=None)) for _ in range(4)
        ]
        assert sorted(clients_of(child) for child in children(server).values()) == [2, 2]
        found: list[str] = []
        for line in lines:
            ask(line, "handshake")
        for line in lines:
            found += ids_of(ask(line, "getData", batch_size=10))
        assert (len(found), len(set(found))) == (40, 40)
        assert figures_of(server.url)["connections_open", "v1"] == 4


@pytest.mark.parametrize("processes", [1, 2])
def test_what_v1_clients_have_seen_outlives_a_killed_server(painter_shards: Path, processes: int):
    validation = ShardReader(painter_shards).read([ReadRequest("train", None, 0, 5)])
    barred = [sample.key for samples in validation for sample in samples]
    total = ShardReader(painter_shards).info().splits["train"]
    with ServerProcess(painter_shards, processes=processes) as server:
        with connect(server.url, compression=None, proxy=None, max_size=None) as line:
            ask(line, "handshake")
            ask(line, "setValidationIds", validation_ids=barred)
            seen = ids_of(ask(line, "getData", batch_size=20))
            unconfirmed = ids_of(ask(line, "getData", batch_size=10))
            os.kill(server.pid, signal.SIGKILL)
        with connect(server.url, compression=None, proxy=None, max_size=None) as line:
            ask(line, "handshake")
            rest = ids_of(ask(line, "getData", batch_size=total - 25))  # what is left of the epoch
        assert len(seen + rest) == len(set(seen + rest)) == total - 5
        assert set(unconfirmed) <= set(rest)
        assert not set(barred) & set(seen + rest)


def test_stopping_leaves_no_process_and_no_file_behind(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = ServerProcess(toy, processes=2)
    processes = [psutil.Process(server.pid), *children(server).values()]
    assert len(processes) == 3
    with talk(server.url):
        server.stop()
    assert not any(process.is_running() for process in processes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_parent_takes_its_processes_along_and_is_replaced(toy: Path):
    with ServerProcess(toy, processes=2) as server:
        parent, orphans = server.pid, list(children(server).values())
        read = StreamClient(server.url).read(batches(100), window=2)
        samples = [next(read)]
        os.kill(parent, signal.SIGKILL)
        assert samples + list(read) == list(ShardReader(toy).read(batches(100)))
        wait_until(lambda: not any(orphan.is_running() for orphan in orphans))
        wait_until(lambda: server.pid != parent and len(children(server)) == 2)


@pytest.mark.slow
def test_one_that_hangs_gets_no_new_clients(toy: Path):
    with ServerProcess(toy, processes=2) as server:
        hung = next(iter(children(server).values()))
        os.kill(hung.pid, signal.SIGSTOP)
        try:
            time.sleep(6)  # until it is overdue
            for _ in range(6):
                assert StreamClient(server.url, timeout_s=5).info().name == "toy-0"
            assert figures_of(server.url)["processes", ""] == 1
        finally:
            os.kill(hung.pid, signal.SIGCONT)
        wait_until(lambda: figures_of(server.url)["processes", ""] == 2)


@pytest.mark.slow
def test_a_fleet_that_cannot_be_started_any_more_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_toy(tmp_path)
    with ServerProcess(tmp_path, processes=2) as server:
        (tmp_path / "manifest.json").unlink()
        for child in children(server):
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: "giving it up" in caplog.text, within_s=60)
        assert not server.alive()


def test_a_process_that_cannot_be_started_is_tried_again_without_end():
    assert [_delay_s(failures) for failures in (0, 1, 2)] == [0.0, 0.2, 0.4]
    assert _delay_s(8) < _delay_s(9) == _delay_s(5000) == 30.0


def test_no_processes_are_an_error(toy: Path):
    with pytest.raises(UserError, match="processes=0 is not a number of server processes"):
        serve(toy, port=0, processes=0)


def test_settings_travel_as_json():
    from diffusion_art.net import Tls
    from diffusion_art.streaming.server.settings import Limits

    for settings in (
        Settings(),
        Settings(token="sésame", tls=Tls("a", "b"), limits=Limits(max_connections=3), eir_seed=4, eir_state="x"),
    ):
        assert Settings.of_json(settings.to_json()) == settings
