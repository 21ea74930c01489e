"""Malformed frames against a server: it neither falls, nor hangs, nor grows, and serves the next client."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.wire import SUBPROTOCOL, Read, pack_message
from tests.streaming import raw
from tests.streaming.mutations import V1_MESSAGES, V2_MESSAGES, bent, odd_frames

# What a server may close with: protocol errors, wrong data, bad text, policy, too big; 1000 where nothing was wrong.
FAIR_CODES = {1000, 1002, 1003, 1005, 1007, 1008, 1009}


def attack(url: str, subprotocol: str | None, examples: list[str], *, seed: int, count: int) -> set[int | None]:
    """`count` connections that each say something wrong; the codes they were closed with."""
    chance = random.Random(seed)
    codes: set[int | None] = set()
    for _ in range(count):
        opening = raw.upgrade(url, subprotocol)
        if chance.random() < 0.1:  # wrong from the first line on
            opening = bent(chance, opening)
        right = raw.message(raw.TEXT, chance.choice(examples).encode()) if chance.random() < 0.5 else b""
        wrong = odd_frames(chance, examples, masked=True)
        answers = raw.exchange(url, opening, right + wrong + raw.message(raw.CLOSE, raw.GOODBYE), quiet_s=0.05)
        assert not any(b"Traceback" in said or b".py" in said for said in answers.messages)
        if answers.status == 101:
            codes.add(answers.close_code)
        elif answers.status is not None:
            assert 400 <= answers.status < 500
    return codes


def chatter(
    url: str, subprotocol: str | None, text_of: Callable[[random.Random], str], *, seed: int, count: int
) -> int:
    """`count` messages on one connection, 16 at a time; how many answers came. The server must not close it."""
    chance = random.Random(seed)
    offered: Any = [subprotocol] if subprotocol else None
    answers = 0
    with connect(url, subprotocols=offered, compression=None, proxy=None, max_size=None) as connection:
        if subprotocol is None:
            connection.send(V1_MESSAGES[0])
            assert json.loads(connection.recv(20))["type"] == "handshake"
        for start in range(0, count, 16):
            wanted = min(16, count - start)
            for _ in range(wanted):
                connection.send(text_of(chance))
            for _ in range(wanted):
                answer = json.loads(connection.recv(20))
                assert answer["type"] == "error", answer
                assert "Traceback" not in str(answer)
                answers += 1
    return answers


def refused_read(chance: random.Random) -> str:
    """A well-formed request that has no answer."""
    start = chance.choice((0, 99, 100, 2**40, 2**62))
    split = chance.choice(("train", "val", "test", "", "\0", "../train", "trÄin" * 20))
    stop = chance.choice((0, start, start + 200, 2**62))
    seed = chance.choice((None, 0, -(2**62), 2**62))
    return pack_message(Read(chance.randrange(2**32), split, seed, chance.randrange(2**62), start, stop))


def refused_v1(chance: random.Random) -> str:
    """Text that protocol 1.0 answers with an error, and goes on."""
    kind = chance.randrange(4)
    if kind == 0:
        return chance.choice(("", "nothing", "[", "[1, 2]", "7", "null", '"getData"', "{}", '{"type": 3}', "[" * 2000))
    if kind == 1:
        return json.dumps({"type": chance.choice(("getdata", "terminate", "data", "", "\0", "x" * 500))})
    size = chance.choice((-1, 0, 2.5, "8", None, True, [], {}, 2**70, -(2**70)))
    payload = chance.choice(({"batch_size": size}, {"batch_size": size, "more": 1}, [size], 7, "x"))
    return json.dumps({"type": "getData", "payload": payload})


@pytest.fixture(scope="module")
def target(painter_shards: Path) -> Iterator[ServerProcess]:
    """A server that nobody else needs."""
    with ServerProcess(painter_shards) as process:
        yield process


class Footprint:
    """Memory (bytes) and file descriptors of a server and the processes it started."""

    def __init__(self, server: ServerProcess) -> None:
        self._pid = server.pid
        main = psutil.Process(server.pid)
        self.family = [main, *main.children(recursive=True)]
        self.files = self._files()
        self.memory = self._memory()

    def grown(self) -> tuple[int, int]:
        """By how much, since."""
        return self._memory() - self.memory, self._files() - self.files

    def _files(self) -> int:
        return sum(process.num_fds() for process in self.family)

    def _memory(self) -> int:
        return sum(process.memory_info().rss for process in self.family)


def bombard(painter_shards: Path, server: ServerProcess, *, closing: int, lasting: int) -> None:
    """`closing` connections with something wrong, then `lasting` messages on four that stay, half of each in v1."""
    pid = server.pid
    expected = list(ShardReader(painter_shards).read([ReadRequest("train", 1, 0, 200)]))
    speakers = [(SUBPROTOCOL, V2_MESSAGES), (None, V1_MESSAGES)] * 2
    for share in (closing // 4, closing):  # the first quarter fills caches and pools
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(attack, server.url, subprotocol, examples, seed=seed, count=share // 4)
                for seed, (subprotocol, examples) in enumerate(speakers)
            ]
            codes = set().union(*(job.result() for job in jobs))
        assert codes <= FAIR_CODES | {None}
        assert {1000, 1002, 1009} <= codes
        if share != closing:
            before = Footprint(server)
    chatters = [(SUBPROTOCOL, refused_read), (None, refused_v1)] * 2
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(chatter, server.url, subprotocol, text_of, seed=seed, count=lasting // 4)
            for seed, (subprotocol, text_of) in enumerate(chatters)
        ]
        assert [job.result() for job in jobs] == [lasting // 4] * 4
    assert list(StreamClient(server.url).read([ReadRequest("train", 1, 0, 200)])) == expected
    assert server.pid == pid
    memory, files = before.grown()
    assert memory < 24 * 2**20
    assert files <= 8  # connections that the kernel has not yet put away


def test_a_server_outlives_malformed_frames(painter_shards: Path, target: ServerProcess):
    bombard(painter_shards, target, closing=400, lasting=1200)


@pytest.mark.slow
def test_a_server_outlives_100_000_malformed_frames(painter_shards: Path, target: ServerProcess):
    bombard(painter_shards, target, closing=16_000, lasting=80_000)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fields = st.dictionaries(
    st.sampled_from(["type", "id", "split", "seed", "epoch", "start", "stop", "version", "codec", "payload"]),
    st.sampled_from(["read", "hello", "info", "getData", "train", 0, 1, 16]) | anything,
    max_size=9,
)


@given(st.lists(fields | anything, min_size=1, max_size=4), st.sampled_from([SUBPROTOCOL, None]))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_gets_an_answer_or_a_fair_goodbye(target: ServerProcess, contents: list, subprotocol: str | None):
    said = b"".join(raw.message(raw.TEXT, json.dumps(content).encode()) for content in contents)
    opening, goodbye = raw.upgrade(target.url, subprotocol), raw.message(raw.CLOSE, raw.GOODBYE)
    answers = raw.exchange(target.url, opening, said + goodbye)
    assert answers.status == 101
    assert answers.close_code in FAIR_CODES
    assert not any(b"Traceback" in said for said in answers.messages)
