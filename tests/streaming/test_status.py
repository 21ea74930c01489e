"""The status table, and its command."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from diffusion_art.errors import UserError
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.status import Reading, Scraper, draw, main, quantile
from tests.conftest import ROOT
from tests.streaming.running import proxied, running


def reading(at: float, **figures: float) -> Reading:
    return Reading(at, {(name, ""): figure for name, figure in figures.items()}, {"name": "toy"})


def test_rates_are_those_between_two_readings():
    before = reading(10.0, samples_total=1000, sent_bytes_total=5e6, cpu_seconds_total=3, processes=2)
    now = reading(
        12.0, samples_total=4000, sent_bytes_total=25e6, cpu_seconds_total=4, processes=2, process_starts_total=5
    )
    console = Console(width=200)
    with console.capture() as captured:
        console.print(draw(["ws://a/ws"], [before], [now]))
    row = captured.get().splitlines()[1].split()
    assert row == ["ws://a/ws", "toy", "2", "0", "1,500", "10.0", "-/-", "0.50", "0", "3", "restarts"]


def test_quantiles_are_interpolated_within_their_bucket():
    def counts(at: float, *figures: int) -> Reading:
        bounds = ("0.1", "0.5", "+Inf")
        return Reading(at, {("request_seconds_bucket", b): n for b, n in zip(bounds, figures)}, {"name": "toy"})

    before, now = counts(0, 10, 10, 10), counts(1, 20, 30, 30)
    assert quantile(before, now, 0.5) == pytest.approx(0.1)
    assert quantile(before, now, 0.75) == pytest.approx(0.3)
    assert quantile(before, counts(1, 10, 10, 20), 0.99) == 0.5  # beyond the last bound
    assert quantile(before, before, 0.5) is None


def test_figures_lie_beside_the_stream(server: ServerProcess):
    with proxied(server.url) as url:
        for address in (url, url.replace("/ws", "/ws/"), server.url, server.url.replace("/ws", "")):
            assert not Scraper(address, token=None, ca=None)().trouble


def test_once_prints_every_server_and_says_which_does_not_answer(
    toy: Path, server: ServerProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    nobody = f"ws://127.0.0.1:{port}/ws"
    assert main(["--status", server.url, nobody, "--once", "--every", "0.1"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "toy-0" in text
    assert "no answer" in text


def test_a_token_is_wanted_and_used(toy: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    with running(toy, Settings(token="s浮ésame")) as url:
        assert main(["--status", url, "--once", "--every", "0.1"]) == 1
        assert "wants its token" in capsys.readouterr().out
        assert main(["--status", url, "--once", "--every", "0.1", "--token", "s浮ésame"]) == 0
        assert "toy-0" in capsys.readouterr().out


def test_a_server_of_something_else_is_no_stream_server(toy: Path):
    wrong = ("ws://box:99999/ws", "ws://box:8O00/ws", "ws://box:0/ws", "ws://[::1/ws")
    for url in ("http://127.0.0.1:1/ws", "127.0.0.1:8000", "ws://", *wrong):
        with pytest.raises(UserError, match="one looks like ws://host:8000/ws"):
            Scraper(url, token=None, ca=None)


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """The address of a server that answers a request with these bytes and hangs up."""

    def talk() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(2**16)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
        finally:
            thread.join()


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "no answer (SSH-2.0-OpenSSH_9.6)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n# HELP", "no answer (IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "no answer ("),
        (b"", "no answer ("),
    ],
)
def test_a_server_of_something_else_is_a_reading_with_its_trouble(answer: bytes, trouble: str):
    with saying(answer) as url:
        found = Scraper(url, token=None, ca=None)()
    assert found.trouble.startswith(trouble)
    assert "\n" not in found.trouble


@pytest.mark.parametrize("host", ["a..b", "b ox"])
def test_a_host_that_is_not_a_name_is_a_reading_with_its_trouble(host: str):
    assert Scraper(f"ws://{host}:8000/ws", token=None, ca=None)().trouble.startswith("no answer (")


def test_the_command_shows_tables_in_a_pipe_until_it_is_interrupted(toy: Path, server: ServerProcess):
    list(StreamClient(server.url).read([ReadRequest("train", 0, 0, 100)]))
    command = [sys.executable, "-m", "diffusion_art.stream", "--status", server.url, "--every", "0.2"]
    environment = {**os.environ, "COLUMNS": "160"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment)
    assert process.stdout is not None
    late = threading.Timer(60, process.kill)
    late.start()
    lines = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    late.cancel()
    assert (process.returncode, complaints) == (0, "")
    for heading, row in (lines[:2], lines[2:]):
        assert re.search(r"processes\s+clients\s+samples/s", heading)
        assert "toy-0" in row


def test_the_command_ends_with_one_sentence_for_an_address_that_is_none():
    command = [sys.executable, "-m", "diffusion_art.stream", "--status", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "error: 'nowhere' is no stream address; one looks like ws://host:8000/ws\n"
