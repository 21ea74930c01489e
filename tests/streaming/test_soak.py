"""Slow clients and many clients: nobody else waits for them, and nothing of them is left."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.wire import SUBPROTOCOL, Hello, Read, decode_frame, pack_message
from tests.conftest import ROOT
from tests.shards.toy import write_toy
from tests.streaming.truth import SEED, expected_keys

SLEEPER = """
import sys
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
requests = [ReadRequest("train", 3, 100 * k, 100 * (k + 1)) for k in range(int(sys.argv[2]))]
for k, samples in enumerate(StreamClient(sys.argv[1], timeout_s=120).read(requests, window=8)):
    print(" ".join(sample.key for sample in samples), flush=True)
"""


def while_one_client_is_stopped(folder: Path, *, passes: int) -> None:
    """Stop a client with its window open; read `passes` epochs with three others; let it go on to its end."""
    requests = [ReadRequest("train", SEED, 100 * k, 100 * (k + 1)) for k in range(5 * passes)]
    expected = [[sample.key for sample in samples] for samples in ShardReader(folder).read(requests)]
    sleeps = 40
    with ServerProcess(folder) as server:
        for _ in range(3):  # all pages of the shards are in memory, and the server has its pools
            list(StreamClient(server.url).read(requests[:5]))
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        command = [sys.executable, "-c", SLEEPER, server.url, str(sleeps)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as sleeper:
            assert sleeper.stdout is not None
            first = sleeper.stdout.readline()
            sleeper.send_signal(signal.SIGSTOP)
            found: dict[int, list] = {}

            def read(number: int) -> None:
                samples = StreamClient(server.url).read(requests, window=4)
                found[number] = [[sample.key for sample in answer] for answer in samples]

            threads = [threading.Thread(target=read, args=(number,)) for number in range(3)]
            try:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(120)
                grown = process.memory_info().rss - before
            finally:
                sleeper.send_signal(signal.SIGCONT)
            rest = sleeper.stdout.read()
            assert sleeper.wait(60) == 0
    assert found == dict.fromkeys(range(3), expected)
    assert grown < 48 * 2**20  # three readers' and one sleeper's windows, whatever the time
    slept = (first + rest).split()
    assert slept == expected_keys(folder, 0, 100 * sleeps)


def test_a_stopped_client_holds_nobody_up_and_goes_on_as_if_nothing_had_been(tmp_path: Path):
    write_toy(tmp_path, train=500, size=40_000, max_samples=10_000)
    while_one_client_is_stopped(tmp_path, passes=2)


@pytest.mark.slow
def test_a_client_stopped_for_many_epochs_of_the_others(tmp_path: Path):
    write_toy(tmp_path, train=500, size=40_000, max_samples=10_000)
    while_one_client_is_stopped(tmp_path, passes=60)


async def come_and_go(url: str, number: int, until: float) -> int:
    """A client that reads some batches, hangs up in one way or another, and comes again; samples it got."""
    chance, taken = random.Random(number), 0
    while time.monotonic() < until:
        async with connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, proxy=None) as line:
            await line.send(pack_message(Hello()))
            await line.recv()
            for k in range(chance.randrange(1, 40)):
                start = chance.randrange(90)
                await line.send(pack_message(Read(k, "train", number, k, start, start + 10)))
                if chance.random() < 0.9:  # else it hangs up without having taken the answer
                    answer = await line.recv()
                    assert isinstance(answer, bytes)
                    taken += len(decode_frame(answer).keys)
            if chance.random() < 0.3:
                line.transport.abort()
    return taken


def soak(folder: Path, *, clients: int, warm_s: float, seconds: float) -> None:
    """`clients` that come and go: once all have been there, the server's memory and descriptors stay as they are."""

    async def crowd(url: str, lasting: float) -> list[int]:
        until = time.monotonic() + lasting
        return await asyncio.gather(*(come_and_go(url, number, until) for number in range(clients)))

    with ServerProcess(folder) as server:
        main = psutil.Process(server.pid)
        family = [main, *main.children(recursive=True)]
        alone = sum(process.num_fds() for process in family)
        asyncio.run(crowd(server.url, warm_s))
        _wait_until_gone(family, alone)
        warm = sum(process.memory_info().rss for process in family)
        taken = asyncio.run(crowd(server.url, seconds))
        assert min(taken) > 0
        _wait_until_gone(family, alone)
        assert sum(process.memory_info().rss for process in family) - warm < 8 * 2**20
        assert server.pid == main.pid
        (samples,) = StreamClient(server.url).read([ReadRequest("train", SEED, 0, 100)])
        assert [sample.key for sample in samples] == expected_keys(folder, 0, 100)


def _wait_until_gone(family: list[psutil.Process], files: int) -> None:
    """Until the server has no more descriptors than `files`, those of the shards it has mapped since aside."""
    allowed = files + 8
    deadline = time.monotonic() + 20
    while sum(process.num_fds() for process in family) > allowed:
        assert time.monotonic() < deadline, "descriptors stay open"
        time.sleep(0.05)


def test_clients_that_come_and_go_leave_nothing_behind(toy: Path):
    soak(toy, clients=16, warm_s=0.5, seconds=1.0)


@pytest.mark.slow
def test_64_clients_that_come_and_go_leave_nothing_behind(toy: Path):
    soak(toy, clients=64, warm_s=3, seconds=9)
