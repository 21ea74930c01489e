"""The client against real servers in child processes, and against a network that misbehaves."""

import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.places import Component
from diffusion_art.streaming.client.readers import Part, ReadRequest, Sample, Session, StreamClient, cut
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Limits, Settings
from tests.conftest import ROOT
from tests.shards.toy import toy_caption, toy_image, toy_key, write_toy
from tests.streaming.running import proxied, wait_until


def batches(size: int, count: int, *, split: str = "train", seed: int | None = 0, first: int = 0) -> list[ReadRequest]:
    return [ReadRequest(split, seed, size * k, size * (k + 1)) for k in range(first, first + count)]


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/")[0])


@pytest.mark.parametrize(
    "requests",
    [
        batches(16, 20),  # over three epochs, batches straddling them
        batches(7, 9, split="val", seed=None),
        batches(1, 5, seed=123, first=10**12),
        [ReadRequest("train", 3, 50, 5000)],  # many epochs in one request, more than one frame each
        [ReadRequest("train", 3, 9, 9), ReadRequest("val", 3, 9, 10)],
        [],
    ],
)
@pytest.mark.parametrize("window", [1, 3, 50])
def test_the_stream_is_the_shards(toy: Path, server: ServerProcess, requests: list[ReadRequest], window: int):
    streamed = list(StreamClient(server.url).read(requests, window=window))
    assert streamed == list(ShardReader(toy).read(requests))
    assert [len(samples) for samples in streamed] == [request.stop - request.start for request in requests]


def test_an_epoch_holds_every_sample_once_and_each_one_as_it_was_stored(server: ServerProcess):
    (samples,) = StreamClient(server.url).read([ReadRequest("train", 5, 200, 300)])
    expected = [Sample(toy_key("train", i), toy_image(i), toy_caption(i)) for i in range(100)]
    assert sorted(samples, key=lambda sample: sample.key) == expected
    assert samples != expected


def test_without_a_seed_samples_come_in_stored_order(server: ServerProcess):
    (samples,) = StreamClient(server.url).read([ReadRequest("val", None, 8, 12)])
    assert [sample.key for sample in samples] == [toy_key("val", i) for i in (8, 9, 0, 1)]


def test_info_is_the_same_with_and_without_a_server(toy: Path, server: ServerProcess):
    info = StreamClient(server.url).info()
    assert info == ShardReader(toy).info()
    assert (info.name, info.splits, info.image_size_px) == ("toy-0", {"train": 100, "val": 10}, 32)


def test_a_split_that_is_not_there_is_refused(toy: Path, server: ServerProcess):
    for reader in (StreamClient(server.url), ShardReader(toy)):
        with pytest.raises(UserError, match=r"'toy-0' has no samples in split 'test', but 100 in 'train', 10 in 'val'"):
            list(reader.read([ReadRequest("test", 0, 0, 1)]))


def test_a_server_killed_again_and_again_loses_and_repeats_nothing(toy: Path):
    with ServerProcess(toy) as server:
        expected = ShardReader(toy).read(batches(16, 400))
        killed: set[int] = set()
        for k, samples in enumerate(StreamClient(server.url).read(batches(16, 400))):
            assert samples == next(expected)
            if k in (0, 3, 120, 121, 399):
                wait_until(lambda: server.pid not in killed)
                killed.add(server.pid)
                os.kill(server.pid, signal.SIGKILL)
        assert len(killed) == 5
        assert next(expected, None) is None


def asking_first(one: ServerProcess, two: ServerProcess, **options: float) -> StreamClient:
    """A client of two servers that begins with `one`."""
    client = StreamClient([one.url, two.url], **options)
    client._turns._order[:] = [one.url, two.url]
    return client


@pytest.mark.parametrize(
    ("count", "batch_size", "window", "got", "other"),
    [
        pytest.param(100, 16, 2, 10, Limits(), id="alike"),
        pytest.param(40, 50, 4, 3, Limits(max_request_samples=7), id="that gives less at once"),
    ],
)
def test_a_client_goes_on_at_another_server_when_its_own_stays_away(
    toy: Path, count: int, batch_size: int, window: int, got: int, other: Limits
):
    requests = batches(batch_size, count)
    with ServerProcess(toy) as one, ServerProcess(toy, settings=Settings(limits=other)) as two:
        read = asking_first(one, two).read(requests, window=window)
        samples = [next(read) for _ in range(got)]
        one.stop()
        assert samples + list(read) == list(ShardReader(toy).read(requests))


def test_a_part_is_cut_where_what_has_come_ends():
    part = Part("train", 0, 2, place=3, stop=20, samples=[Sample("0", b"", "")])
    pieces = cut([part], 7)
    assert pieces[0] is part
    assert [(piece.place, piece.stop, len(piece.samples)) for piece in pieces] == [(3, 10, 1), (10, 17, 0), (17, 20, 0)]
    assert cut(pieces, 7) == pieces


def test_a_server_that_hangs_is_left(toy: Path):
    requests = batches(16, 30)
    with ServerProcess(toy) as one, ServerProcess(toy) as two:
        client = asking_first(one, two, timeout_s=0.3)
        read = client.read(requests, window=1)
        samples = [next(read)]
        os.kill(one.pid, signal.SIGSTOP)
        try:
            assert samples + list(read) == list(ShardReader(toy).read(requests))
        finally:
            os.kill(one.pid, signal.SIGCONT)


@contextmanager
def bad_network(url: str, *, seed: int) -> Iterator[str]:
    """A relay to the server at `url` that cuts each connection, or flips one bit of it, at a random byte."""
    chance = random.Random(seed)
    address = ("127.0.0.1", port_of(url))
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def relay(source: socket.socket, sink: socket.socket, harm_at: int, flip: bool) -> None:
        passed = 0
        try:
            while data := bytearray(source.recv(4096)):
                if passed <= harm_at < passed + len(data):
                    if not flip:
                        break
                    data[harm_at - passed] ^= 1 << chance.randrange(8)
                passed += len(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            upstream = socket.create_connection(address)
            harm_at, flip = int(chance.expovariate(1 / 20_000)), chance.random() < 0.5
            for source, sink, at in ((client, upstream, 2**60), (upstream, client, harm_at)):
                threads.append(threading.Thread(target=relay, args=(source, sink, at, flip)))
                threads[-1].start()
            sockets.extend((client, upstream))

    sockets: list[socket.socket] = []
    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()
        for end in sockets:
            end.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_network_that_cuts_and_damages_loses_and_repeats_nothing(toy: Path, server: ServerProcess, seed: int):
    requests = batches(16, 60)
    with bad_network(server.url, seed=seed) as url:
        client = StreamClient(url, timeout_s=0.5, connect_for_s=30)
        assert list(client.read(requests, window=4)) == list(ShardReader(toy).read(requests))


@pytest.mark.parametrize(("window_bytes", "most"), [(1, 1), (3 * 16 * 3072, 3), (2**40, 20)])
def test_no_more_is_asked_ahead_than_there_is_room_for(
    toy: Path, server: ServerProcess, monkeypatch: pytest.MonkeyPatch, window_bytes: int, most: int
):
    """Until the first samples have come they are taken for as large as decoded ones, 3072 bytes each."""
    ahead: list[int] = []
    ask = Session.ask

    def counted(session: Session, parts: Iterable[Part]) -> None:
        ask(session, parts)
        ahead.append(len(session._asked))

    monkeypatch.setattr(Session, "ask", counted)
    requests = [ReadRequest("train", 0, 0, 16)] * 60
    client = StreamClient(server.url, window_bytes=window_bytes)
    assert list(client.read(requests, window=20)) == list(ShardReader(toy).read(requests))
    assert ahead[0] == most
    assert max(ahead) == (1 if window_bytes == 1 else 20)  # the toy's samples are small, so soon there is room


def test_no_server_is_an_error_with_the_address_and_the_mend():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(
        UserError, match=rf"ws://127\.0\.0\.1:{port}/ws; start one with `python -m diffusion_art\.stream"
    ):
        StreamClient(f"ws://127.0.0.1:{port}/ws", connect_for_s=0.3).info()
    assert 0.2 < time.monotonic() - began < 3


def test_a_server_that_stays_away_in_mid_run_is_an_error_after_a_while(toy: Path):
    with ServerProcess(toy) as server:
        read = StreamClient(server.url, retry_for_s=0.3).read(batches(16, 100), window=1)
        next(read)
        server.stop()
        with pytest.raises(UserError, match=r"has broken off; start it again .* and resume.*waited 0\.3 s"):
            list(read)


def test_a_new_reader_in_mid_run_waits_as_the_run_does(toy: Path):
    with ServerProcess(toy) as server:
        info = StreamClient(server.url).info()
    reader = StreamClient(server.url, met=info, connect_for_s=0.1, retry_for_s=30)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(lambda: list(reader.read(batches(16, 5))))
        time.sleep(1)
        with ServerProcess(toy, port=port_of(server.url)):
            assert read.result() == list(ShardReader(toy).read(batches(16, 5)))


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1/ws", "127.0.0.1:8000", ""),
        *("ws://box:80000/ws", "ws://box:8O00/ws", "ws://[::1/ws", "ws://a..b/ws"),
    ],
)
def test_an_address_that_is_none_is_an_error(url: str):
    with pytest.raises(UserError, match="one looks like ws://host:8000/ws"):
        StreamClient(url).info()
    with pytest.raises(UserError, match="names no server"):
        StreamClient([])


def test_a_wrong_path_is_an_error_at_once(server: ServerProcess):
    with pytest.raises(UserError, match="HTTP status 404"):
        StreamClient(server.url.replace("/ws", "/")).info()
    assert StreamClient(server.url.replace("/ws", "//ws/")).info() == StreamClient(server.url).info()


def test_a_proxy_that_does_not_ask_for_a_websocket_is_told_of_at_once(server: ServerProcess):
    with proxied(server.url) as url:
        assert StreamClient(url).info() == StreamClient(server.url).info()
    for change in ((b"HTTP/1.1", b"HTTP/1.0"), (b"Upgrade: websocket\r\n", b"")):
        with proxied(server.url, change) as url, pytest.raises(UserError, match=r"set proxy_http_version 1\.1"):
            StreamClient(url).info()


def test_another_data_set_after_a_restart_is_an_error_naming_both(toy: Path, tmp_path: Path):
    other = write_toy(tmp_path, seed=1)
    with ServerProcess(toy) as server:
        client = StreamClient(server.url)
        info = client.info()
        read = client.read(batches(16, 100), window=1)
        next(read)
        server.stop()
    with ServerProcess(tmp_path, port=port_of(server.url)) as second:
        with pytest.raises(UserError, match=rf"'toy-1' \({other.digest}\).*'toy-0' \({info.digest}\)"):
            list(read)
        with pytest.raises(UserError, match=rf"{other.digest}.*{info.digest}"):
            StreamClient(second.url, met=info).info()


def test_other_captions_after_a_restart_are_an_error_naming_both(toy: Path):
    """The digest is that of the shards, whatever captions are made of them."""
    with ServerProcess(toy) as server:
        client = StreamClient(server.url)
        info = client.info()
        read = client.read(batches(16, 100), window=1)
        next(read)
        server.stop()
    with ServerProcess([Component(toy, caption_template="By {title}")], port=port_of(server.url)) as second:
        told = (
            r"makes its captions by 'By \{title\}', this run reads those by '\{title\}'.*"
            r" data\.path=FOLDER 'caption_template=\{title\}'`"
        )
        with pytest.raises(UserError, match=told):
            list(read)
        with pytest.raises(UserError, match=told):
            StreamClient(second.url, met=info).info()


def test_captions_of_two_servers_are_not_mixed(toy: Path):
    with ServerProcess(toy) as one, ServerProcess([Component(toy, caption_template="By {title}")]) as two:
        client = asking_first(one, two)
        read = client.read(batches(16, 100), window=1)
        next(read)
        one.stop()
        with pytest.raises(UserError, match=rf"the stream server at {two.url} makes its captions by"):
            list(read)


def test_a_shard_cut_under_the_server_makes_empty_samples(tmp_path: Path):
    write_toy(tmp_path, train=64)
    requests = batches(64, 1, seed=None)
    with ServerProcess(tmp_path) as server:
        os.truncate(tmp_path / "train-000001.tar", 100)
        (samples,) = StreamClient(server.url).read(requests)
    assert [sample.key for sample in samples] == [toy_key("train", i) for i in range(64)]
    assert [bytes(sample.image) for sample in samples] == [toy_image(i) if i < 32 else b"" for i in range(64)]
    assert [sample.caption for sample in samples] == [toy_caption(i) if i < 32 else "" for i in range(64)]


def test_readers_go_to_other_processes(toy: Path, server: ServerProcess):
    requests = batches(16, 10)
    expected = list(ShardReader(toy).read(requests))
    for reader in (StreamClient(server.url), ShardReader(toy)):
        read = reader.read(requests, window=1)
        samples = [next(read)]
        copy = pickle.loads(pickle.dumps(reader))  # as for a spawned worker
        assert list(copy.read(requests)) == expected
        child = os.fork()
        if child == 0:  # a forked worker reads, and hangs up, on lines of its own
            right = list(reader.read(requests)) == expected
            reader.close()
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert samples + list(read) == expected
        reader.close()
        assert list(reader.read(requests)) == expected


def test_a_client_leaves_the_global_random_state_alone(server: ServerProcess):
    """In a process of its own: pytest's type checker draws from the global generator itself."""
    program = (
        "import random, sys; from diffusion_art.streaming.client.readers import ReadRequest, StreamClient\n"
        "random.seed(0); state = random.getstate()\n"
        "client = StreamClient(['ws://127.0.0.1:1/ws', sys.argv[1]])\n"
        "client._turns._order.sort()  # first the one that is not there\n"
        "assert len(next(client.read([ReadRequest('train', 0, 0, 9)]))) == 9\n"
        "assert random.getstate() == state"
    )
    subprocess.run([sys.executable, "-c", program, server.url], check=True, cwd=ROOT)
