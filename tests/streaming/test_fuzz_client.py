"""Malformed and forged answers against the clients: they notice, fail in one way only, and ask again."""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from diffusion_art.errors import UserError
from diffusion_art.shards.reader import Sample
from diffusion_art.streaming.client.line import Line, LineError
from diffusion_art.streaming.client.readers import ReadRequest, Session, StreamClient, parts_of
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.eir.line import EirLine
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.wire import SUBPROTOCOL, WireError, decode_frame, unpack_message
from tests.streaming import raw
from tests.streaming.mutations import (
    HEADER,
    INFO,
    V1_ANSWERS,
    V2_MESSAGES,
    bent,
    odd_frames,
    odd_message,
    real_frames,
    resealed,
    unsealed,
)


def read_malformed(painter_shards: Path, count: int) -> int:
    """Decode `count` broken frames, half of them with a checksum that holds, or none; how many passed for frames."""
    chance = random.Random(0)
    originals = real_frames(painter_shards)
    texts = [text.encode() for text in V2_MESSAGES]
    passed = 0
    for number in range(count):
        original = chance.choice(originals)
        if number % 4 == 3:
            with suppress(WireError):
                unpack_message(bent(chance, chance.choice(texts)).decode("utf-8", "replace"))
            continue
        data = bent(chance, original)
        if number % 2 and len(data) >= HEADER.size:
            header, body = bytearray(data[: HEADER.size]), data[HEADER.size :]
            header[:8] = original[:8] if chance.random() < 0.9 else header[:8]
            header[24:28] = struct.pack("<I", len(body)) if chance.random() < 0.9 else header[24:28]
            data = chance.choice((resealed, unsealed))(bytes(header) + body)
        try:
            frame = decode_frame(data)
        except WireError:
            continue
        lengths = [len(part) for part in (*frame.captions, *frame.images)]
        assert sum(lengths) + 17 * len(frame.keys) + HEADER.size == len(data)
        assert number % 2 or data == original or original[6] & 2  # nothing changed may pass its checksum
        passed += 1
    return passed


def test_malformed_bytes_are_refused_or_hold_together(painter_shards: Path):
    assert read_malformed(painter_shards, 4_000) > 100


@pytest.mark.slow
def test_100_000_malformed_frames_leave_the_client_as_it_was(painter_shards: Path):
    read_malformed(painter_shards, 10_000)
    before = psutil.Process().memory_info().rss
    assert read_malformed(painter_shards, 100_000) > 1000
    assert psutil.Process().memory_info().rss - before < 16 * 2**20


def hear_v2(painter_shards: Path, *, count: int) -> None:
    """Dial `count` servers that greet as they should and then say something wrong."""
    chance = random.Random(1)
    originals = real_frames(painter_shards)

    def speech() -> bytes:
        greeting = INFO.encode() if chance.random() < 0.8 else odd_message(chance, [INFO])
        wrong = [odd_frames(chance, [INFO, *V2_MESSAGES], masked=False) for _ in range(chance.randrange(1, 4))]
        wrong.append(bent(chance, raw.message(raw.BINARY, chance.choice(originals), masked=False)))
        return raw.message(raw.TEXT, greeting, masked=False) + b"".join(wrong)

    with raw.hosting(speech) as url:
        for _ in range(count):
            with suppress(LineError):
                line = Line(url, token=None, timeout_s=5, open_within_s=5)
                try:
                    while True:
                        line.receive()
                finally:
                    line.close()


def hear_v1(*, count: int) -> None:
    """The same, of servers that speak only protocol 1.0."""
    chance = random.Random(2)

    def speech() -> bytes:
        said = [text.encode() for text in (*V1_ANSWERS[:2], V1_ANSWERS[2])]
        if chance.random() < 0.5:
            place = chance.randrange(len(said))
            said[place] = odd_message(chance, V1_ANSWERS[place : place + 1])
        wrong = [odd_frames(chance, V1_ANSWERS, masked=False) for _ in range(chance.randrange(1, 4))]
        return b"".join(raw.message(raw.TEXT, text, masked=False) for text in said) + b"".join(wrong)

    with raw.hosting(speech) as url:
        for _ in range(count):
            with suppress(LineError, UserError):
                line = EirLine(url, token=None, ca=None, timeout_s=5, open_within_s=5)
                try:
                    while True:
                        line.ask_data(2)
                        assert all(isinstance(sample, Sample) for sample in line.receive_data() or ())
                finally:
                    line.close()


def test_a_server_that_says_anything_at_all_is_one_line_error(painter_shards: Path):
    hear_v2(painter_shards, count=200)
    hear_v1(count=100)


@pytest.mark.slow
def test_servers_that_say_anything_at_all_leave_the_client_as_it_was(painter_shards: Path):
    hear_v2(painter_shards, count=500)
    hear_v1(count=250)
    process = psutil.Process()
    memory, files = process.memory_info().rss, process.num_fds()
    hear_v2(painter_shards, count=2500)
    hear_v1(count=250)
    assert process.memory_info().rss - memory < 16 * 2**20
    assert process.num_fds() - files <= 4


class Forger:
    """Stands between a client and the server at `url` and forges one answer in three, each in another way."""

    def __init__(self, url: str, *, seed: int, share: float = 0.3) -> None:
        self._upstream, self._share = url, share
        self._chance = random.Random(seed)
        self._last = b""
        self.forged = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        with serve(
            self._relay, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], compression=None, close_timeout=0.1
        ) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
            server.shutdown()
            thread.join()

    def _relay(self, client: ServerConnection) -> None:
        with (
            suppress(ConnectionClosed),
            connect(self._upstream, subprotocols=[SUBPROTOCOL], compression=None, max_size=None, proxy=None) as server,
        ):
            for request in client:
                server.send(request)
                while True:
                    answer = server.recv(20)
                    last = isinstance(answer, str) or bool(answer[6] & 1)
                    parts = self._forge(answer) if isinstance(answer, bytes) else [answer]
                    for part in parts:
                        client.send(part)
                    if not parts:
                        return
                    if last:
                        break

    def _forge(self, frame: bytes) -> list[bytes | str]:
        last, self._last = self._last, frame
        if self._chance.random() > self._share:
            return [frame]
        self.forged += 1
        magic, version, flags, request, count, position, body_bytes, _ = HEADER.unpack_from(frame)
        body = frame[HEADER.size :]

        def sealed(
            *, flags: int = flags, request: int = request, count: int = count, position: int = position
        ) -> bytes:
            header = HEADER.pack(magic, version, flags, request, count, position, body_bytes, 0)
            return resealed(header + body)

        match self._chance.randrange(9):
            case 0:
                return [bent(self._chance, frame)]
            case 1:
                return [sealed(position=(position + self._chance.choice((1, -1, 2**40))) % 2**64)]
            case 2:
                return [sealed(request=(request + self._chance.choice((1, 2**31))) % 2**32)]
            case 3:
                return [sealed(flags=flags ^ 1)]
            case 4:
                return [sealed(count=(count + self._chance.choice((1, -1, 2**20))) % 2**32)]
            case 5:
                return [frame, frame]
            case 6:
                return [last or b"", frame]
            case 7:
                return [self._chance.choice((b"", b"dart", "", "{}", '{"type":"hello","version":2}', "[" * 5000))]
            case _:
                return []  # and hang up


def read_through_forgeries(painter_shards: Path, server: ServerProcess, *, until: int) -> None:
    """Ask again after each forgery that was noticed, as the client does but without its pauses, `until` that many."""
    expected = ShardReader(painter_shards)
    forger = Forger(server.url, seed=until)
    with forger.running() as url:
        number, session, refused = 0, None, 0
        while forger.forged < until:
            request = ReadRequest("train", 0, 16 * number, 16 * (number + 1))
            parts = parts_of(request, expected.info())
            while not all(part.done for part in parts):
                try:
                    session = session or Session(Line(url, token=None, timeout_s=0.5, open_within_s=10))
                    session.ask(parts)
                    session.receive()
                except LineError:
                    refused += 1
                    if session is not None:
                        session.line.close()
                    session = None
            samples = [sample for part in parts for sample in part.samples]
            assert samples == next(iter(expected.read([request])))
            number += 1
        assert refused > until // 3
        if session is not None:
            session.line.close()


def test_forged_answers_are_noticed_and_asked_again(painter_shards: Path, painter_server: ServerProcess):
    read_through_forgeries(painter_shards, painter_server, until=60)


def test_the_whole_client_gets_through_forgeries(painter_shards: Path, painter_server: ServerProcess):
    requests = [ReadRequest("train", 5, 16 * k, 16 * (k + 1)) for k in range(60)]
    forger = Forger(painter_server.url, seed=1, share=0.2)
    with forger.running() as url:
        client = StreamClient(url, timeout_s=0.5, connect_for_s=30)
        assert list(client.read(requests, window=4)) == list(ShardReader(painter_shards).read(requests))
    assert forger.forged > 2


@pytest.mark.slow
def test_forged_answers_by_the_thousand(painter_shards: Path, painter_server: ServerProcess):
    read_through_forgeries(painter_shards, painter_server, until=100)
    before = psutil.Process()
    memory, files = before.memory_info().rss, before.num_fds()
    read_through_forgeries(painter_shards, painter_server, until=800)
    assert before.memory_info().rss - memory < 32 * 2**20
    assert before.num_fds() - files <= 4
