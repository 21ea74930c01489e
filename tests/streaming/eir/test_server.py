"""EIR's protocol 1.0 as its clients see it."""

import base64
import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
import simplejpeg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import open_shards
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.eir.ledger import Ledger
from diffusion_art.streaming.eir.server import MAX_REPLY_BYTES
from diffusion_art.streaming.eir.shared_stream import EirPass
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Limits, Settings
from tests.conftest import ROOT
from tests.streaming.eir.serving import HANDSHAKE, Eir, eir, serving
from tests.streaming.pictures import picture, picture_caption, picture_key, write_pictures

KEYS = {picture_key(i) for i in range(100)}
ONCE = Settings(eir_epochs=1)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 training and 10 validation pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.fixture
def endless(pictures: Path) -> Iterator[str]:
    """The address of a server that nobody has asked for anything."""
    with serving(pictures) as address:
        yield address


@pytest.fixture
def url(pictures: Path) -> Iterator[str]:
    """The same with a stream of one epoch."""
    with serving(pictures, ONCE) as address:
        yield address


def in_order(folder: Path, *, epoch: int, seed: int = 0) -> list[str]:
    """The keys of an epoch, from the pure function alone."""
    shards = open_shards(folder)
    return [shards.key("train", int(i)) for i in shards.order("train", seed=seed, epoch=epoch)(np.arange(100))]


def wait_for_others_to_go(client: Eir) -> None:
    deadline = time.monotonic() + 20
    while client.ask("status")["payload"]["active_connections"] > 1:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# ------------------------------------------------------------------ every reply


def test_every_request_has_its_reply(url: str):
    image, caption = {"type": "image", "shape": None}, {"type": "sequence", "shape": None}
    with eir(url) as client:
        info = {"inputs": {"image": image, "caption": caption}, "outputs": {"image": image}}
        assert client.ask("getInfo") == {"type": "info", "payload": info}
        assert client.ask("heartbeat") == {"type": "heartbeat"}
        status = client.ask("status", {})
        assert set(status) == {"type", "payload"}
        assert status["type"] == "status"
        assert status["payload"]["samples"] == 100
        confirmed = client.ask("setValidationIds", {"validation_ids": [picture_key(0)]})
        assert confirmed["type"] == "validationIdsConfirmation"
        assert set(confirmed["payload"]) == {"message"}
        for kind in ("resetConfirmation", "reset"):
            answer = client.ask("reset", {}) if kind == "resetConfirmation" else client.hear()
            assert (answer["type"], set(answer["payload"])) == (kind, {"message"})


def test_a_sample_is_what_the_shards_hold(pictures: Path, url: str):
    numbers = {picture_key(i): i for i in range(100)}
    with eir(url) as client:
        payload = client.data(100)
    assert {sample["sample_id"] for sample in payload} == KEYS
    for sample in payload:
        i = numbers[sample["sample_id"]]
        assert sample == {
            "inputs": {"image": sample["inputs"]["image"], "caption": picture_caption(i)},
            "target_labels": {"image": {"image": sample["inputs"]["image"]}},
            "sample_id": picture_key(i),
        }
        assert base64.b64decode(sample["inputs"]["image"], validate=True) == picture(i)


@pytest.mark.parametrize("greeting", [HANDSHAKE | {"version": "2.0"}, {"type": "handshake"}])
def test_another_version_is_sent_away_and_costs_nobody_else_anything(url: str, greeting: dict):
    with eir(url) as other, connect(url, proxy=None) as connection:
        connection.send(json.dumps(greeting))
        answer = Eir(connection).hear()
        assert answer["type"] == "error"
        assert "1.0" in answer["payload"]["message"]
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
        assert len(other.ids(10)) == 10


@pytest.mark.parametrize(
    "message",
    [
        "not json",
        "{",
        "[" * 60_000,
        b"binary",
        b'{"type": "heartbeat"}',
        "[]",
        "1",
        "null",
        "{}",
        '{"type": null}',
        '{"type": []}',
        '{"type": "getdata"}',
        '{"type": "getData"}',
        '{"type": "getData", "payload": 3}',
        '{"type": "getData", "payload": {"batch_size": 0}}',
        '{"type": "getData", "payload": {"batch_size": true}}',
        '{"type": "getData", "payload": {"batch_size": 1e3}}',
        '{"type": "setValidationIds", "payload": ["a"]}',
        '{"type": "setValidationIds", "payload": {"validation_ids": [1]}}',
    ],
)
def test_what_is_not_the_protocol_gets_an_error_and_the_stream_goes_on(url: str, message: str | bytes):
    with eir(url) as client:
        client.connection.send(message)
        answer = client.hear()
        assert answer["type"] == "error"
        assert set(answer["payload"]) == {"message"}
        assert "Traceback" not in answer["payload"]["message"]
        assert len(client.ids(64)) == 64


def test_nothing_is_said_before_the_handshake(url: str):
    with connect(url, proxy=None) as connection:
        client = Eir(connection)
        for kind in ("getInfo", "getData", "reset", "status", "nonsense"):
            assert client.ask(kind)["type"] == "error"
        connection.send(json.dumps(HANDSHAKE))
        assert client.hear() == {"type": "handshake", "version": "1.0"}
        assert len(client.ids(10)) == 10


def test_many_validation_ids_fit_into_a_request(url: str):
    with eir(url) as client:
        ids = [f"{i:016x}" for i in range(20_000)] + ["sample_7", "ÄÖÜ", ""]
        assert client.ask("setValidationIds", {"validation_ids": ids})["type"] == "validationIdsConfirmation"
        assert client.ask("status")["payload"]["validation_ids_count"] == 20_000


# ------------------------------------------------------------------ one stream for all


def test_the_stream_is_epoch_after_epoch_in_the_order_of_each(pictures: Path, endless: str):
    expected = [key for epoch in range(4) for key in in_order(pictures, epoch=epoch)]
    with eir(endless) as client:
        ids = [name for size in (64, 30, 64, 1, 141, 100) for name in client.ids(size)]
    assert ids == expected
    for epoch in range(4):
        assert set(expected[100 * epoch : 100 * (epoch + 1)]) == KEYS


def test_a_stream_of_some_epochs_ends_after_them(pictures: Path):
    with serving(pictures, Settings(eir_epochs=2)) as url, eir(url) as client:
        assert client.rest(33) == [*in_order(pictures, epoch=0), *in_order(pictures, epoch=1)]
        assert client.data(64) == client.data(1) == ["terminate"]
        client.reset()
        assert client.ids(10) == in_order(pictures, epoch=0)[:10]


def test_a_worker_that_comes_after_the_end_does_not_begin_anew(url: str):
    with eir(url) as early, eir(url) as late:
        early.rest(100)
        assert late.data(1) == ["terminate"]
        late.reset()
        assert late.data(1) == early.data(1) == ["terminate"]
    with eir(url) as early, eir(url) as reader:
        early.rest(100)
        reader.reset()
        assert len(reader.ids(10)) == 10


def test_a_training_after_the_end_begins_anew(pictures: Path, url: str):
    for _ in range(2):
        with eir(url) as client:
            client.validate()
            assert client.rest(64) == in_order(pictures, epoch=0)


def test_epochs_are_counted_from_one(pictures: Path):
    for wrong in (0, -1):
        with pytest.raises(UserError, match=r"eir\.epochs=.* is not a number of epochs"):
            EirPass(open_shards(pictures), epochs=wrong)


def test_another_seed_is_another_order(pictures: Path):
    with serving(pictures, Settings(eir_seed=7)) as url, eir(url) as client:
        assert client.ids(50) == in_order(pictures, epoch=0, seed=7)[:50] != in_order(pictures, epoch=0)[:50]


def test_validation_samples_never_come_again(endless: str):
    with eir(endless) as client:
        chosen = client.ids(25)
    with eir(endless) as client:
        client.reset()
        client.ask("setValidationIds", {"validation_ids": chosen[:20]})
        client.ask("setValidationIds", {"validation_ids": chosen[20:]})
    for _ in range(3):
        with eir(endless) as one, eir(endless) as other:
            one.reset()
            found = one.ids(40) + other.ids(35) + one.ids(5) + other.ids(70)
            assert Counter(found) == Counter(dict.fromkeys(KEYS - set(chosen), 2))


def test_exactly_as_many_come_as_were_asked_for_though_some_are_left_out(url: str):
    with eir(url) as client:
        client.ask("setValidationIds", {"validation_ids": sorted(KEYS)[:80]})
        assert len(client.ids(15)) == 15
        assert len(client.rest(15)) == 5


def test_clients_share_the_stream_without_duplicates(url: str):
    found: list[str] = []

    def read(samples: int) -> None:
        with eir(url) as client:
            client.validate()
            found.extend(client.rest(samples))

    threads = [threading.Thread(target=read, args=(samples,)) for samples in (1, 2, 3, 5, 8, 13, 21, 34)]
    with eir(url) as first:
        found += first.ids(1)  # so that the stream is being read
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found += first.rest(10)
    assert Counter(found) == Counter(KEYS)


def test_a_vanished_client_loses_nothing_and_repeats_nothing(url: str):
    with eir(url) as other:
        with eir(url) as client:
            seen = client.ids(10)
            unseen = client.ids(10)  # asking for these says that the first ten have come
        wait_for_others_to_go(other)
        rest = other.rest(100)
    assert rest[:10] == unseen
    assert Counter(rest + seen) == Counter(KEYS)


def test_a_client_that_vanished_with_a_backlog_of_requests_gets_no_answer_in_vain(url: str):
    with eir(url) as other:
        with eir(url) as client:
            for _ in range(30):
                client.say("heartbeat")
                client.say("getData", {"batch_size": 2})
            client.hear()
        wait_for_others_to_go(other)
        rest = other.rest(100)
        assert max(Counter(rest).values()) == 1
        assert len(rest) >= 100 - 2 * 29  # one answer at least had no request after it


def test_the_sample_thrown_away_by_each_new_connection_is_not_lost(pictures: Path, url: str):
    with eir(url) as first:
        ids = first.ids(10)
        for _ in range(5):
            with eir(url) as client:
                client.validate()
                ids += client.ids(3)
                client.ask("heartbeat")
        assert ids + first.rest(100) == in_order(pictures, epoch=0)


def test_a_reset_begins_anew_only_when_nobody_else_reads(pictures: Path, endless: str):
    order = in_order(pictures, epoch=0)
    with eir(endless) as client:
        assert client.ids(10) + client.ids(10) == order[:20]
        client.reset()
        assert client.ids(10) + client.ids(10) == order[:20]
        with eir(endless) as other:
            other.reset()
            assert other.ids(10) == order[20:30]
            assert other.ids(1) == order[30:31]
            other.reset()
            assert other.ids(10) == order[31:41]
        wait_for_others_to_go(client)
        assert client.ids(20) == order[31:51]


@pytest.fixture
def three_epochs(pictures: Path) -> Iterator[str]:
    with serving(pictures, Settings(eir_epochs=3)) as address:
        yield address


def test_the_start_of_eirtrain_takes_nothing_from_its_training(three_epochs: str):
    """Its connections in their order: status, set-up, reset, status, validation ids, and then eight workers."""
    url = three_epochs
    with eir(url) as client:
        assert client.ask("status", {})["type"] == "status"
    with eir(url) as client:
        client.validate()
        assert client.ask("getInfo")["type"] == "info"
        setup = [*client.ids(16), *client.ids(16), *client.ids(16)]
    with eir(url) as client:
        client.reset()
    with eir(url) as client:
        assert client.ask("status", {})["payload"]["current_position"] == 0
    with eir(url) as client:
        client.ask("setValidationIds", {"validation_ids": setup[:20]})
    found: list[str] = []
    gate = threading.Barrier(8)

    def work() -> None:
        with eir(url) as worker:
            worker.validate()
            gate.wait(10)
            worker.say("heartbeat")
            while True:
                worker.say("heartbeat")
                worker.say("getData", {"batch_size": 4})
                answer = worker.hear()
                if answer["type"] != "data":
                    assert answer == {"type": "heartbeat"}
                elif answer["payload"] == ["terminate"]:
                    return
                else:
                    found.extend(sample["sample_id"] for sample in answer["payload"])

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert Counter(found) == Counter(dict.fromkeys(KEYS - set(setup[:20]), 3))


def test_a_stream_that_nobody_reads_for_a_while_is_a_new_one(pictures: Path):
    shards = open_shards(pictures)
    for idle_s, first in ((60.0, 10), (0.0, 0)):
        state = EirPass(shards, idle_s=idle_s)
        client = state.join()
        assert state.take(client, 10, answer=1).tolist() == list(range(10))
        client.seen = 1
        state.leave(client)
        time.sleep(0.01)
        assert state.take(state.join(), 1, answer=1).tolist() == [first]
        state.close()


def test_a_stopped_server_goes_on_where_it_was_however_long_it_was_away(pictures: Path, tmp_path: Path):
    path, shards = tmp_path / "state", open_shards(pictures)
    state = EirPass(shards, path=path)
    client = state.join()
    assert state.take(client, 10, answer=1).tolist() == list(range(10))
    client.seen = 1
    state.leave(client)
    state.close()
    with closing(sqlite3.connect(path)) as books, books:
        books.execute("UPDATE stream SET left_at = left_at - 3600")
    again = EirPass(shards, path=path)
    assert again.take(again.join(), 1, answer=1).tolist() == [10]
    again.close()


# ------------------------------------------------------------------ bad pictures, large ones, slow clients


def test_a_corrupt_picture_is_left_out_and_the_stream_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    whole = picture(0)
    damaged = {3: whole[:100], 50: b"no picture", 70: b"\0" * 20 + whole[20:], 99: whole[:-2]}
    write_pictures(tmp_path, damaged=damaged)
    with serving(tmp_path, ONCE) as url, eir(url) as client:
        payload = [sample for _ in range(3) for sample in client.data(32)]
        assert client.data(1) == ["terminate"]
    assert {sample["sample_id"] for sample in payload} == KEYS - {picture_key(i) for i in damaged}
    for sample in payload:
        simplejpeg.decode_jpeg(base64.b64decode(sample["inputs"]["image"]), strict=True)
    for i in damaged:
        assert picture_key(i) in caplog.text


def test_a_data_set_without_a_whole_picture_ends_at_once(tmp_path: Path):
    write_pictures(tmp_path, train=5, damaged=dict.fromkeys(range(5), b"no picture"))
    with serving(tmp_path) as url, eir(url) as client:
        assert client.data(3) == ["terminate"]


def test_an_answer_stays_within_what_a_client_takes(tmp_path: Path):
    large = picture(0, 1024)
    write_pictures(tmp_path, train=30, damaged=dict.fromkeys(range(30), large))
    with serving(tmp_path, ONCE) as url, eir(url) as client:
        client.say("getData", {"batch_size": 30})
        text = client.connection.recv(20)
        assert MAX_REPLY_BYTES // 2 < len(text) <= MAX_REPLY_BYTES + 100
        ids = [sample["sample_id"] for sample in json.loads(text)["payload"]]
        assert 1 <= len(ids) < 30
        assert Counter(ids + client.rest(30)) == Counter(picture_key(i) for i in range(30))


def test_the_server_sets_the_most_samples_of_an_answer(pictures: Path):
    with serving(pictures, Settings(limits=Limits(max_request_samples=7))) as url, eir(url) as client:
        assert [len(client.ids(n)) for n in (6, 7, 8, 10**9)] == [6, 7, 7, 7]


@pytest.mark.slow
def test_a_client_that_does_not_read_stops_nobody_and_fills_nothing(tmp_path: Path):
    large = picture(0, 128)
    write_pictures(tmp_path, train=2000, damaged=dict.fromkeys(range(2000), large))
    with ServerProcess(tmp_path) as server, eir(server.url) as client:
        process = psutil.Process(server.pid)
        for _ in range(10):
            client.ids(200)
        before = process.memory_info().rss
        with connect(server.url, proxy=None, max_queue=1, max_size=None) as sleeper:
            sleeper.send(json.dumps(HANDSHAKE))
            for _ in range(2000):
                sleeper.send(json.dumps({"type": "heartbeat"}))
                sleeper.send(json.dumps({"type": "getData", "payload": {"batch_size": 100}}))
            for _ in range(20):
                assert len(client.ids(100)) == 100
            assert process.memory_info().rss - before < 32 * 2**20
            sleeper.close_timeout = 0.1
        assert StreamClient(server.url).info().name == "pictures"


# ------------------------------------------------------------------ several processes, and their deaths


def test_server_processes_share_the_stream_by_a_file(pictures: Path, tmp_path: Path):
    shards = open_shards(pictures)
    states = [EirPass(shards, path=tmp_path / "state") for _ in range(3)]
    clients = [state.join() for state in states]
    states[0].exclude([picture_key(i) for i in range(100)][:50])
    found = [
        position
        for answer in range(1, 50)
        for state, client in zip(states, clients, strict=True)
        for position in state.take(client, 3, answer=answer).tolist()
    ]
    assert found == list(range(49 * 9))
    keys = np.array([int(picture_key(i), 16) for i in range(100)], np.uint64)
    for state in states:
        assert state.excluded(keys).tolist() == [i < 50 for i in range(100)]
        state.close()


def test_what_a_killed_server_had_handed_out_is_handed_out_again(pictures: Path, tmp_path: Path):
    program = (
        "import sys, time\n"
        "from diffusion_art.streaming.eir.shared_stream import EirPass\n"
        "from diffusion_art.shards.mixture import open_shards\n"
        "state = EirPass(open_shards(sys.argv[1]), path=sys.argv[2]); client = state.join()\n"
        "state.take(client, 10, answer=1); client.seen = 1; state.take(client, 10, answer=2)\n"
        "print('taken', flush=True); time.sleep(60)"
    )
    path = tmp_path / "state"
    command = [sys.executable, "-c", program, str(pictures), str(path)]
    shards = open_shards(pictures)
    survivor = EirPass(shards, path=path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        assert survivor.take(survivor.join(), 60, answer=1).tolist() == list(range(20, 80))
        process.send_signal(signal.SIGKILL)
        process.wait()
    replacement = EirPass(shards, path=path)
    again = replacement.take(replacement.join(), 100, answer=1)
    assert again.tolist() == [*range(10, 20), *range(80, 170)]
    for state in (survivor, replacement):
        state.close()


def test_a_state_file_of_another_data_set_is_refused(pictures: Path, tmp_path: Path):
    state = EirPass(open_shards(pictures), path=tmp_path / "state")
    state.join()
    state.close()
    with pytest.raises(UserError, match=r"with seed 0, this one .* with seed 1; delete that file"):
        EirPass(open_shards(pictures), path=tmp_path / "state", seed=1)


def test_a_state_that_cannot_be_kept_is_an_error_that_names_the_file(pictures: Path, tmp_path: Path):
    (tmp_path / "text").write_text("no database\n" * 100)
    for path in (tmp_path / "nowhere/state", tmp_path / "text"):
        with pytest.raises(UserError, match=rf"cannot be kept in {path} .*eir\.state=FILE"):
            EirPass(open_shards(pictures), path=path)


@pytest.mark.slow
def test_clients_of_several_processes_get_each_sample_once(pictures: Path):
    with (
        ServerProcess(pictures, settings=ONCE, processes=2) as server,
        eir(server.url) as one,
        eir(server.url) as two,
        eir(server.url) as three,
    ):
        found = [name for client in (one, two, three) * 3 for name in client.ids(7)]
        assert Counter(found + two.rest(50)) == Counter(KEYS)
        assert one.data(1) == three.data(1) == ["terminate"]


@pytest.mark.slow
def test_validation_samples_stay_out_when_the_server_is_killed_and_replaced(pictures: Path, tmp_path: Path):
    settings = Settings(eir_state=str(tmp_path / "state"), eir_epochs=1)
    with ServerProcess(pictures, settings=settings) as server:
        with eir(server.url) as client:
            client.ask("setValidationIds", {"validation_ids": sorted(KEYS)[:30]})
            found = client.ids(10) + client.ids(10)
        os.kill(server.pid, signal.SIGKILL)
        with eir(server.url) as client:  # waits for the new one
            found = found[:10] + client.rest(10)
    assert Counter(found) == Counter(sorted(KEYS)[30:])


# ------------------------------------------------------------------ beside protocol v2


def test_both_protocols_are_spoken_at_one_address(pictures: Path, url: str):
    with eir(url) as client:
        assert len(client.ids(5)) == 5
        samples = next(StreamClient(url).read([ReadRequest("train", 0, 0, 5)]))
        assert [sample.key for sample in samples] == in_order(pictures, epoch=0)[:5]
        assert len(client.ids(5)) == 5


@pytest.mark.parametrize("processes", [1, 2])
def test_the_ledger_is_opened_when_its_protocol_is_spoken_and_not_before(
    pictures: Path, tmp_path: Path, processes: int
):
    ledger = tmp_path / "state"
    with ServerProcess(pictures, settings=Settings(eir_state=str(ledger)), processes=processes) as server:
        assert next(StreamClient(server.url).read([ReadRequest("train", 0, 0, 5)]))
        assert not list(tmp_path.iterdir())
        with eir(server.url) as client:
            assert len(client.ids(5)) == 5
            assert ledger.is_file()


def test_a_client_that_is_cut_off_in_mid_answer_leaves_no_trace(tmp_path: Path):
    large = picture(0, 512)
    write_pictures(tmp_path, train=100, damaged=dict.fromkeys(range(100), large))
    with serving(tmp_path, ONCE) as url, eir(url) as other:
        assert len(other.ids(1)) == 1
        for _ in range(5):
            with connect(url, proxy=None, max_queue=1, max_size=None) as connection:
                connection.send(json.dumps(HANDSHAKE))
                connection.send(json.dumps({"type": "getData", "payload": {"batch_size": 20}}))
                connection.recv(10)
                raw = connection.socket
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST
                raw.shutdown(socket.SHUT_RDWR)
        wait_for_others_to_go(other)
        assert len(other.rest(100)) == 99


def test_processes_that_open_the_books_at_once_all_get_them(tmp_path: Path):
    """Sixty times over: the change to a write-ahead log does not wait for the other processes by itself."""
    context = multiprocessing.get_context("fork")
    together = context.Barrier(6)

    def open_books() -> None:
        for number in range(60):
            together.wait(30)
            Ledger(tmp_path / f"{number}.sqlite", digest="a" * 32, seed=0).close()

    processes = [context.Process(target=open_books) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
