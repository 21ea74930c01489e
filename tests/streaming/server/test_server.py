"""The server as its clients and its operator see it."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import trustme
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from diffusion_art.errors import UserError
from diffusion_art.net import headers_of
from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.service import open_server
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.wire import SUBPROTOCOL, Hello, Read, decode_frame, pack_message
from tests.conftest import ROOT
from tests.shards.toy import write_toy
from tests.streaming.running import running, wait_until


@contextmanager
def talk(url: str, **options) -> Iterator[ClientConnection]:
    with connect(url, **{"subprotocols": [SUBPROTOCOL], "compression": None, "proxy": None, **options}) as connection:
        yield connection


def test_a_long_range_comes_in_several_frames_and_a_large_sample_in_its_own(tmp_path: Path):
    write_toy(tmp_path, train=600, val=4, size=10, max_samples=1000)
    from diffusion_art.shards.reader import ShardWriter, write_manifest

    manifest = ShardSet.open(tmp_path).manifest
    with ShardWriter(tmp_path, split="big") as writer:
        for i, size in enumerate([400_000, 400_000, 400_000, 3_000_000, 10]):
            writer.add(f"{2**60 + i:016x}", bytes(size), "", {})
        shards = {**manifest.shards, "big": writer.close()}
    write_manifest(tmp_path, name="x", image_size_px=1, caption_template=None, shards=shards)
    with ServerProcess(tmp_path) as server, talk(server.url, max_size=None) as connection:
        for split, stop, sizes in (("train", 600, [256, 256, 88]), ("big", 5, [2, 1, 1, 1])):
            connection.send(pack_message(Read(9, split, None, 0, 0, stop)))
            frames = [decode_frame(connection.recv()) for _ in sizes]
            assert [len(frame.keys) for frame in frames] == sizes
            assert [frame.position for frame in frames] == [sum(sizes[:k]) for k in range(len(sizes))]
            assert [frame.last for frame in frames] == [False] * (len(sizes) - 1) + [True]
            assert {frame.request for frame in frames} == {9}


def test_a_request_that_cannot_be_answered_is_refused_and_the_next_one_is_served(server: ServerProcess):
    with talk(server.url) as connection:
        refused = {
            "unknown_split": Read(1, "test", 0, 0, 0, 1),
            "bad_range": Read(1, "train", 0, 0, 90, 101),
            "bad_range ": Read(1, "train", 0, 0, 5, 5),
        }
        for code, read in refused.items():
            connection.send(pack_message(read))
            answer = json.loads(connection.recv())
            assert (answer["type"], answer["id"], answer["code"]) == ("error", 1, code.strip())
        connection.send(pack_message(Read(2, "train", 0, 0, 90, 100)))
        assert decode_frame(connection.recv()).last


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("not json", 1002),
        ("{}", 1002),
        ("[" * 60_000, 1002),
        (b"binary", 1002),
        (json.dumps({"type": "read", "id": 2**40}), 1002),
        (json.dumps({"type": "hello", "version": 3}), 1002),
        (json.dumps({"type": "error", "id": None, "code": "", "message": ""}), 1002),
        ("x" * 70_000, 1009),
    ],
)
def test_what_is_not_the_protocol_ends_the_connection_and_not_the_server(
    server: ServerProcess, message: str | bytes, code: int
):
    pid = server.pid
    with talk(server.url) as connection:
        connection.send(message)
        said: list[str] = []
        with pytest.raises(ConnectionClosed) as closed:
            said.extend(connection.recv(10) for _ in range(9))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
    assert "Traceback" not in "".join(said)
    assert StreamClient(server.url).info().name == "toy-0"
    assert server.pid == pid


def test_a_client_of_no_known_protocol_is_turned_away(server: ServerProcess):
    with pytest.raises(InvalidStatus) as refused, talk(server.url, subprotocols=["eir.v9"]):
        pass
    assert refused.value.response.status_code == 400
    assert SUBPROTOCOL in refused.value.response.body.decode()


def test_a_client_that_does_not_read_stops_nobody_and_fills_nothing(tmp_path: Path):
    write_toy(tmp_path, train=500, size=40_000, max_samples=10_000)
    with ServerProcess(tmp_path) as server:
        list(StreamClient(server.url).read([ReadRequest("train", 0, 0, 500)]))  # every page of the shards is mapped
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        with talk(server.url, max_queue=1) as sleeper:
            sleeper.send(pack_message(Hello()))
            for number in range(500):
                sleeper.send(pack_message(Read(number, "train", 0, 0, 0, 500)))
            began = time.monotonic()
            for _ in range(3):
                client = StreamClient(server.url)
                assert sum(map(len, client.read([ReadRequest("train", 0, 0, 500)]))) == 500
            assert time.monotonic() - began < 10
            assert process.memory_info().rss - before < 16 * 2**20
            sleeper.close_timeout = 0.1
        wait_until(lambda: not process.net_connections(kind="tcp4")[1:])  # but for the one that listens
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 3


def test_many_clients_at_once_each_get_their_own(toy: Path, server: ServerProcess):
    requests = [[ReadRequest("train", seed, 16 * k, 16 * (k + 1)) for k in range(20)] for seed in range(8)]
    found: dict[int, list] = {}
    threads = [
        threading.Thread(target=lambda s=seed: found.update({s: list(StreamClient(server.url).read(requests[s]))}))
        for seed in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: list(ShardReader(toy).read(requests[seed])) for seed in range(8)}


@pytest.fixture
def guarded(toy: Path) -> Iterator[str]:
    """The address of a server that wants the token "s浮ésame"."""
    with running(toy, Settings(token="s浮ésame")) as url:
        yield url


def test_a_token_is_asked_for_before_anything_is_said(guarded: str):
    assert StreamClient(guarded, token="s浮ésame").info().name == "toy-0"
    with pytest.raises(UserError, match=r"asks for a token; set data\.token"):
        StreamClient(guarded).info()
    with pytest.raises(InvalidStatus) as refused, talk(guarded):
        pass
    assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"
    for wrong in ("sesame", " ", "S浮ésame"):
        with pytest.raises(UserError, match=r"does not accept our token; check data\.token"):
            StreamClient(guarded, token=wrong).info()


def test_pages_of_other_sites_may_not_read_the_stream(server: ServerProcess, guarded: str):
    """A browser lets any page dial this machine, and says whose page it is; some libraries name the server itself."""
    for origin in ("http://localhost:3000", "http://127.0.0.1:8000", "http://[::1]:1"):
        with connect(server.url, origin=Origin(origin), proxy=None):
            pass
    for origin in ("https://example.com", "null", "http://[", "http://localhost.example.com"):
        with pytest.raises(InvalidStatus) as refused, connect(server.url, origin=Origin(origin), proxy=None):
            pass
        assert refused.value.response.status_code == 403
    with connect(guarded, origin=Origin("https://example.com"), additional_headers=headers_of("s浮ésame"), proxy=None):
        pass


def test_a_token_that_nobody_gave_is_that_of_the_environment(guarded: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIFFUSION_ART_STREAM_TOKEN", "s浮ésame")
    assert StreamClient(guarded).info().name == "toy-0"
    assert StreamClient(guarded, token="s浮ésame").info().name == "toy-0"
    with pytest.raises(UserError, match="does not accept our token"):
        StreamClient(guarded, token="wrong").info()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_server_that_others_can_reach_needs_a_token(toy: Path, host: str):
    with pytest.raises(UserError, match=r"has no token; set token=SECRET"):
        asyncio.run(open_server(ShardSet.open(toy), host=host))


def test_a_taken_port_is_an_error_that_names_it(toy: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}"):
            asyncio.run(open_server(ShardSet.open(toy), port=port))
        with pytest.raises(UserError, match=f"port {port}"):
            ServerProcess(toy, port=port)


def test_a_server_process_refuses_unsound_shards_at_once(tmp_path: Path):
    with pytest.raises(UserError, match="no shard folder"):
        ServerProcess(tmp_path / "nowhere")


def test_a_killed_server_comes_back_on_its_port_and_a_stopped_one_does_not(toy: Path):
    with ServerProcess(toy) as server:
        url, pid = server.url, server.pid
        assert server.alive()
        os.kill(pid, signal.SIGKILL)
        assert StreamClient(url).info().name == "toy-0"  # waits for the new one
        wait_until(lambda: server.pid != pid)
        assert (server.alive(), server.url) == (True, url)
    assert not server.alive()
    server.stop()
    with pytest.raises(UserError, match="no stream server"):
        StreamClient(url, connect_for_s=0.1).info()


@pytest.mark.slow
def test_a_server_that_can_no_longer_start_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_toy(tmp_path)
    with ServerProcess(tmp_path) as server:
        (tmp_path / "manifest.json").unlink()
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: "giving it up" in caplog.text, within_s=60)
        assert not server.alive()
        with pytest.raises(UserError, match="no stream server"):
            StreamClient(server.url, connect_for_s=0.1).info()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_process_ends_with_its_parent_and_tidies_up(toy: Path, tmp_path: Path, how: signal.Signals):
    program = (
        "import sys, time; from diffusion_art.streaming.server.process import ServerProcess\n"
        "server = ServerProcess(sys.argv[1]); print(server.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(toy)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(how)
        parent.wait()
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert list(tmp_path.iterdir()) == []


def test_the_server_is_light(toy: Path):
    program = (
        "import sys, diffusion_art.streaming.server.run\n"
        "print(*sorted({'torch', 'hydra', 'lightning', 'PIL'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert output.stdout.strip() == ""


def test_the_command_serves_until_it_is_told_to_stop(toy: Path):
    command = [sys.executable, "-m", "diffusion_art.stream", f"data.path={toy}", "port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        assert re.match(r"serving toy-0 \(100 train, 10 val samples, 32 px\) at ws://127\.0\.0\.1:\d+/ws$", first)
        url = first.split()[-1]
        assert f"data.url={url}" in process.stdout.readline()
        samples = next(StreamClient(url).read([ReadRequest("train", 0, 0, 10)]))
        assert len(samples) == 10
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_the_command_serves_with_several_processes_tls_and_limits(toy: Path, tmp_path: Path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    command = [sys.executable, "-m", "diffusion_art.stream", f"data.path={toy}", "port=0", "processes=2", "token=x"]
    command += [f"tls.certificate={tmp_path}/server.pem", f"tls.key={tmp_path}/server.pem"]
    command += ["limits.max_request_samples=50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split()[-1]
        assert url.startswith("wss://127.0.0.1:")
        client = StreamClient(url, token="x", ca=str(tmp_path / "ca.pem"))
        assert client.info().max_count == 50
        assert len(next(client.read([ReadRequest("train", 0, 0, 100)]))) == 100
        children = psutil.Process(process.pid).children()
        assert len(children) == 2
        assert not any("x" in child.cmdline() for child in children)  # a token is not for the list of processes
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "data.path="),
        (["data.path=nowhere"], "no shard folder nowhere"),
        (["data.path={toy}", "host=0.0.0.0"], "token=SECRET"),
        (["data.path={toy}", "prot=1"], "prot"),
        (["data.path={toy}", "tls.key=a"], "tls.certificate is missing"),
        (["data.path={toy}", "limits.open_timeout_s=0"], "limits.open_timeout_s=0 is not a number"),
        (["data.path={toy}", "processes=0"], "processes=0"),
        (["data.path={toy}", "cache=decoded"], "cache=decoded is for decoded pictures: give decode=true too"),
    ],
)
def test_the_command_ends_with_one_sentence_when_it_cannot_serve(toy: Path, run_here, arguments: list, says: str):
    status, _, complaints = run_here("stream", *(argument.format(toy=toy) for argument in arguments))
    assert status == 1
    assert re.fullmatch(r"error: [^\n]+\n", complaints)
    assert says in complaints
