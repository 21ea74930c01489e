"""A server is asked to end, once or twice. One Ctrl-C comes twice where a command passes on what the terminal sent."""

from __future__ import annotations

import json
import signal

import pytest

from diffusion_art.serving import listening
from diffusion_art.serving.listening import AnnouncedServer, config_of
from diffusion_art.serving.settings import Limits
from tests.serving.raw import connect, eventually, post
from tests.serving.running import serving
from tests.serving.test_limits import GENERATIONS


def interrupt(server: AnnouncedServer, times: int = 1) -> None:
    for _ in range(times):
        server.handle_exit(signal.SIGINT, None)


async def nothing(scope, receive, send) -> None:
    """An application that answers nobody."""


def test_a_signal_that_comes_twice_at_once_is_one_and_a_later_one_forces(monkeypatch):
    server = AnnouncedServer(config_of(nothing, Limits()))
    interrupt(server, 2)
    assert (server.should_exit, server.force_exit) == (True, False)
    monkeypatch.setattr(listening, "AGAIN_S", 0.0)
    interrupt(server)
    assert server.force_exit


@pytest.mark.slow
def test_pictures_on_their_way_outlive_a_signal_that_comes_twice(toy_folder):
    with serving(toy_folder) as small, connect(small.port) as link:
        link.sendall(post(GENERATIONS, {"prompt": "x", "sampler": "heun", "num_inference_steps": 60, "n": 2}))
        assert eventually(lambda: small.engine.stats().jobs_running == 2)
        interrupt(small.server, 2)
        assert small.studio.draining
        answer = b""
        while part := link.recv(65536):
            answer += part
        assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["data"]) == 2
        small.thread.join(20)
        assert not small.server.force_exit


def test_a_later_signal_does_not_wait_for_pictures(toy_folder, monkeypatch):
    with serving(toy_folder) as small, connect(small.port) as link:
        link.sendall(post(GENERATIONS, {"prompt": "x", "sampler": "heun", "num_inference_steps": 200, "n": 4}))
        assert eventually(lambda: small.engine.stats().jobs_running == 4)
        interrupt(small.server)
        assert not small.server.force_exit
        monkeypatch.setattr(listening, "AGAIN_S", 0.0)
        interrupt(small.server)
        assert small.server.force_exit
        small.thread.join(20)
        assert not small.thread.is_alive()
