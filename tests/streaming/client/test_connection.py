"""The client's half of WebSocket, against servers that do all they may, and some things that they may not."""

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.server import Server, ServerConnection, serve

from diffusion_art.streaming.client.connection import Connection

MAX_BYTES = 2**20


def connect(port: int, **settings) -> Connection:
    defaults = {"subprotocol": "toy", "headers": {}, "max_bytes": MAX_BYTES, "open_within_s": 30.0}
    return Connection(f"ws://127.0.0.1:{port}/ws", **{**defaults, **settings})


@contextmanager
def conversation(talk: Callable[[ServerConnection], None]) -> Iterator[int]:
    """The port of a server made with the websockets library that has `talk` with whoever comes."""
    server: Server = serve(talk, "127.0.0.1", 0, subprotocols=["toy"], compression=None, max_size=None)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def raw_server(say: bytes, *, after: float = 0.0, status: str = "101 Switching Protocols") -> Iterator[int]:
    """The port of a server that greets properly, then says the bytes `say`, and waits until the client leaves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as client:
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += client.recv(4096)
                (line,) = [line for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: ")]
                accept = hashlib.sha1(line.split()[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
                head = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                head += f"Sec-WebSocket-Accept: {base64.b64encode(accept).decode()}\r\n"
                client.sendall(head.encode() + b"Sec-WebSocket-Protocol: toy\r\n\r\n" + say[:7])
                time.sleep(after)
                with suppress(ConnectionError):
                    client.sendall(say[7:])
                client.settimeout(30)
                with suppress(ConnectionResetError):  # it left without reading all
                    while client.recv(4096):
                        pass

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def test_messages_of_all_lengths_come_as_they_were_sent():
    lengths = [0, 1, 125, 126, 127, 65535, 65536, MAX_BYTES]
    messages = [kind for n in lengths for kind in (bytes(range(256)) * (n // 256) + bytes(n % 256), "ä" * (n // 2))]

    def talk(connection: ServerConnection) -> None:
        for message in messages:
            connection.send(message)
        assert connection.recv() == "thanks"

    with conversation(talk) as port:
        connection = connect(port)
        assert connection.subprotocol == "toy"
        for message in messages:
            assert connection.recv(30) == message
        connection.send("thanks")
        connection.close()
        with pytest.raises(ConnectionError):
            connection.send("anyone there?")


def test_pings_are_answered_and_long_texts_sent():
    def talk(connection: ServerConnection) -> None:
        ponged = connection.ping()
        connection.send("pinged")
        assert connection.recv() == "x" * 100_000
        connection.send("ponged" if ponged.wait(5) else "silence")

    with conversation(talk) as port:
        connection = connect(port)
        assert connection.recv(30) == "pinged"
        connection.send("x" * 100_000)
        assert connection.recv(30) == "ponged"
        connection.close()


def test_a_farewell_names_its_reason():
    with conversation(lambda connection: connection.close(1011, "no more pictures")) as port:
        connection = connect(port)
        with pytest.raises(ConnectionError, match=r"hung up.*1011.*no more pictures"):
            connection.recv(30)
        connection.close()


def test_headers_are_sent():
    def talk(connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.send(connection.request.headers["Authorization"])

    with conversation(talk) as port:
        connection = connect(port, headers={"Authorization": "Bearer sesame"})
        assert connection.recv(30) == "Bearer sesame"
        connection.close()


@pytest.mark.parametrize(
    ("say", "complaint"),
    [
        (b"\x82\x7f" + (MAX_BYTES + 1).to_bytes(8, "big") + b"x", "over the limit"),
        (b"\x82\x7f" + b"\xff" * 8, "over the limit"),
        (b"\x01\x02ab", "in pieces"),
        (b"\x02\x02ab\x80\x02cd", "in pieces"),
        (b"\x80\x02ab", "does not speak WebSocket"),
        (b"\xc2\x02ab", "does not speak WebSocket"),
        (b"\x82\x82abcdef", "does not speak WebSocket"),
        (b"\x83\x02ab", "does not speak WebSocket"),
        (b"\x89\x7e\x01\x00" + bytes(256), "does not speak WebSocket"),
        (b"\x81\x02\xff\xff", "not UTF-8"),
        (b"\x88\x00", "hung up"),
    ],
)
def test_what_a_server_must_not_say_ends_the_connection(say: bytes, complaint: str):
    with raw_server(say) as port:
        connection = connect(port)
        with pytest.raises(ConnectionError, match=complaint):
            connection.recv(30)
        connection.close()


def test_what_comes_right_behind_the_handshake_or_byte_by_byte_is_not_lost():
    with raw_server(b"\x81\x02hi\x82\x05there", after=0.1) as port:
        connection = connect(port)
        assert connection.recv(30) == "hi"
        assert connection.recv(30) == b"there"
        connection.close()


def test_silence_and_half_a_message_are_timeouts():
    for say in (b"", b"\x82\x7f", b"\x82\x05ab"):
        with raw_server(say) as port:
            connection = connect(port)
            with pytest.raises(TimeoutError):
                connection.recv(0.1)
            connection.close()


def test_a_server_that_leaves_in_mid_message_is_gone():
    def leave(connection: ServerConnection) -> None:
        connection.socket.sendall(b"\x82\x7f" + (1000).to_bytes(8, "big") + bytes(10))
        connection.socket.shutdown(socket.SHUT_RDWR)

    with conversation(leave) as port:
        connection = connect(port)
        with pytest.raises(ConnectionError, match="gone"):
            connection.recv(30)
        connection.close()


def test_a_refusal_and_a_stranger_are_told_apart():
    with raw_server(b"", status="503 Service Unavailable") as port, pytest.raises(InvalidHandshake) as refused:
        connect(port, open_within_s=0.5)
    assert isinstance(refused.value, InvalidStatus)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def mumble() -> None:
            with listener.accept()[0] as client:
                client.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                client.recv(4096)

        thread = threading.Thread(target=mumble)
        thread.start()
        with pytest.raises(InvalidHandshake):
            connect(listener.getsockname()[1])
        thread.join()
    with pytest.raises(InvalidURI):
        Connection("http://127.0.0.1/ws", subprotocol=None, headers={}, max_bytes=1, open_within_s=1.0)


def test_a_handshake_that_never_ends_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            with listener.accept()[0] as client:
                for _ in range(40):
                    try:
                        client.sendall(b"H")
                    except OSError:
                        return
                    time.sleep(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with pytest.raises((TimeoutError, InvalidHandshake)):
            connect(listener.getsockname()[1], open_within_s=0.2)
        assert time.monotonic() - began < 5
        thread.join()
