"""Messages that leave in parts arrive whole, in order, whatever the socket takes at once."""

import asyncio
import logging
import os
import random
import socket
from pathlib import Path

import pytest

from diffusion_art.net import listen, tune
from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.client.connection import Connection
from diffusion_art.streaming.server import guest
from diffusion_art.streaming.server.guest import write_message
from diffusion_art.streaming.server.service import open_server
from diffusion_art.streaming.wire import SUBPROTOCOL, Hello, Read, pack_message
from tests.shards.toy import write_toy


def messages() -> list[list[bytes]]:
    """Of many lengths and numbers of parts, empty parts among them, some larger than any socket buffer."""
    chance = random.Random(0)
    sizes = [[], [0], [1, 124], [126], [1, 0, 65534], [65536], [10] * 2000, [2**20] * 9, [0, 0, 300_000, 0]]
    return [[chance.randbytes(size) for size in parts] for parts in sizes]


@pytest.mark.parametrize("at_once", [None, 100_000, 10, 0])
def test_messages_in_parts_arrive_as_if_they_were_joined(at_once: int | None, monkeypatch: pytest.MonkeyPatch):
    """`at_once`: all that the system takes of a message, at most; None for what it really does."""
    expected = [b"".join(parts) for parts in messages()]

    def some(file: int, parts: list) -> int:
        if not at_once:
            raise BlockingIOError
        return os.write(file, b"".join(parts)[:at_once])

    if at_once is not None:
        monkeypatch.setattr(guest.os, "writev", some)

    async def talk() -> list[bytes]:
        near, far = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
        reader, writer = await asyncio.open_connection(sock=far)
        try:
            for parts in messages():  # the later ones while much of the earlier ones still waits
                assert write_message(transport, parts) == sum(map(len, parts))
            return [await _message(reader) for _ in expected]
        finally:
            transport.abort()
            writer.close()

    assert asyncio.run(talk()) == expected


async def _message(reader: asyncio.StreamReader) -> bytes:
    first, size = await reader.readexactly(2)
    assert first == 0x82
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return await reader.readexactly(size)


def test_a_closed_connection_takes_nothing_and_does_no_harm():
    async def talk() -> None:
        near, far = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
        far.close()
        for _ in range(3):
            write_message(transport, [b"x" * 2**20])
            await asyncio.sleep(0.01)
        assert transport.is_closing()

    asyncio.run(talk())


def test_a_client_that_leaves_in_mid_answer_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_toy(tmp_path, train=400, size=60_000)

    async def talk() -> None:
        async with await open_server(ShardSet.open(tmp_path)) as server:
            host, port = next(iter(server.sockets)).getsockname()[:2]
            for _ in range(3):
                await asyncio.to_thread(_ask_and_leave, f"ws://{host}:{port}/ws")
            for _ in range(100):
                if not server.connections:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("a connection is still open")

    with caplog.at_level(logging.INFO):
        asyncio.run(talk())
    assert "an answer failed" not in caplog.text


def _ask_and_leave(url: str) -> None:
    connection = Connection(url, subprotocol=SUBPROTOCOL, headers={}, max_bytes=2**26, open_within_s=30.0)
    connection.send(pack_message(Hello()))
    connection.recv(5)
    for number in range(8):
        connection.send(pack_message(Read(number, "train", 0, 0, 0, 400)))
    assert len(connection.recv(5)) > 2**19
    connection._socket.close()  # with much unread: the server's next write is answered by a reset


def test_a_short_message_does_not_wait_for_word_of_the_last_one():
    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Accepting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                tune(transport)
                peer = transport.get_extra_info("socket")
                found.set_result(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        with listen("127.0.0.1", 0, token=None) as listener:
            server = await asyncio.get_running_loop().create_server(Accepting, sock=listener)
            async with server:
                with socket.create_connection(listener.getsockname()):
                    return await found

    assert asyncio.run(accepted())
