"""What strangers, crowds and slow clients may take of a server."""

import math
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from diffusion_art.errors import UserError
from diffusion_art.net import authorised, headers_of
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.guest import MAX_STRANGERS, Entrance
from diffusion_art.streaming.server.settings import Limits, Settings
from diffusion_art.streaming.wire import SUBPROTOCOL, Read, pack_message, unpack_message
from tests.streaming.running import figures_of, running


def talk(url: str, **options):
    return connect(url, **{"subprotocols": [SUBPROTOCOL], "compression": None, "proxy": None, **options})


def knock(url: str) -> socket.socket:
    """A connection that says nothing."""
    return socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1].split("/")[0])))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_connections", 0),
        ("max_message_bytes", 2**40),
        ("max_request_samples", 10_000),
        ("open_timeout_s", 0),
        ("max_connections", True),
        ("open_timeout_s", math.nan),
    ],
)
def test_a_limit_out_of_its_range_is_an_error_that_names_it(name: str, value):
    with pytest.raises(UserError, match=rf"limits\.{name}={value!r} is not a (whole )?number from"):
        Limits(**{name: value})


def test_a_whole_number_may_be_written_as_a_power_of_ten():
    asked = {"max_connections": 1e2, "max_message_bytes": 1e5, "max_request_samples": 1e3, "open_timeout_s": 1.5}
    limits = Limits.of(asked)
    assert limits == Limits(100, 100_000, 1000, 1.5)
    assert [type(value) for value in vars(limits).values()] == [int, int, int, float]


def test_a_part_of_a_client_is_an_error_that_names_it(run_command, toy: Path):
    done = run_command("stream", f"data.path={toy}", "port=0", "limits.max_connections=10.5", timeout=60)
    said = "error: limits.max_connections=10.5 is not a whole number from 1 to 1,000,000\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_request_carries_the_token_once_or_not_at_all():
    for token in ("sesame", "浮世絵"):
        (header,) = headers_of(token).values()
        assert authorised([header], token)
        assert authorised([header.replace("Bearer", "bearer")], token)
        assert not any(authorised(given, token) for given in ([], [header, header], [token], [f"{header} "], ["€"]))
    assert headers_of(None) == {}
    assert authorised([], None)


def test_the_entrance_shows_out_the_one_who_waits_longest():
    out: list[int] = []
    entrance = Entrance(most=3)
    for number in range(3):
        entrance.enter(number, lambda number=number: out.append(number))
    entrance.leave(0)
    entrance.leave(0)
    entrance.enter(3, lambda: out.append(3))
    assert (out, len(entrance)) == ([], 3)
    entrance.enter(4, lambda: out.append(4))
    entrance.enter(5, lambda: out.append(5))
    assert (out, len(entrance)) == ([1, 2], 3)


def test_one_client_too_many_is_turned_away_until_another_leaves(toy: Path):
    with running(toy, Settings(limits=Limits(max_connections=2))) as url:
        with talk(url), talk(url, subprotocols=None):  # those of both protocols count
            with pytest.raises(InvalidStatus) as full:
                talk(url)
            assert full.value.response.status_code == 503
            assert full.value.response.headers["Retry-After"] == "1"
            with pytest.raises(UserError, match="503, it has all the clients it takes"):
                StreamClient(url, connect_for_s=0.2).info()
        assert StreamClient(url, connect_for_s=10).info().name == "toy-0"
        figures = figures_of(url)
        assert figures["connections_refused_total", "full"] >= 2
        assert figures["connections_total", "v1"] == 1


def test_silent_strangers_keep_nobody_out(toy: Path):
    """A slowloris: hundreds of connections whose handshake never ends."""
    with running(toy) as url, ExitStack() as stack:
        strangers = [stack.enter_context(knock(url)) for _ in range(MAX_STRANGERS + 20)]
        strangers[-1].sendall(b"GET /ws HTTP/1.1\r\n")
        requests = [ReadRequest("train", 0, 0, 100)]
        assert list(StreamClient(url).read(requests)) == list(ShardReader(toy).read(requests))
        for stranger in strangers[:20]:  # shown out
            stranger.settimeout(10)
            with suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
        strangers[-1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            strangers[-1].recv(1)


def test_a_handshake_has_its_time(toy: Path):
    with running(toy, Settings(limits=Limits(open_timeout_s=0.3))) as url, knock(url) as stranger:
        stranger.settimeout(10)
        with suppress(ConnectionResetError):
            assert stranger.recv(1) == b""


def test_a_client_is_told_how_much_it_may_ask_for_and_asks_for_no_more(toy: Path):
    with running(toy, Settings(limits=Limits(max_request_samples=7))) as url:
        assert StreamClient(url).info().max_count == 7
        requests = [ReadRequest("train", 0, 0, 250)]
        assert list(StreamClient(url).read(requests)) == list(ShardReader(toy).read(requests))
        with talk(url) as connection:
            connection.send(pack_message(Read(3, "train", 0, 0, 0, 8)))
            answer = unpack_message(str(connection.recv()))
            assert (answer.id, answer.code) == (3, "too_many")


def test_a_message_over_the_limit_ends_the_connection(toy: Path):
    with running(toy, Settings(limits=Limits(max_message_bytes=300))) as url, talk(url) as connection:
        connection.send("x" * 301)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
