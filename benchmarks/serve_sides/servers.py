"""Servers as processes of their own: how each is started, where it answers, how long that took."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
from stream_sides.running import BENCHMARKS, SideError

BUILD = BENCHMARKS.parent / "build" / "serve"
START_LIMIT_S = 120
COMPILE_LIMIT_S = 600


@dataclass(frozen=True)
class Server:
    url: str
    ready_s: float  # from the start of the process to the first answer that it is ready
    pid: int


def ours(checkpoint: Path, *overrides: str) -> AbstractContextManager[Server]:
    """`python -m diffusion_art.serve` with its defaults and overrides; it compiles only where they ask for it."""
    words = [f"run={checkpoint.resolve()}", "limits.rate_per_minute=null", "compile=false", *overrides]
    return _served([sys.executable, "-m", "diffusion_art.serve", *words, "port={port}"], ready="/ready")


@contextlib.contextmanager
def ours_compiled(checkpoint: Path) -> Iterator[Server]:
    """The same once its network is compiled."""
    with ours(checkpoint, "compile=true") as server, httpx.Client(trust_env=False, timeout=10) as client:
        until = time.perf_counter() + COMPILE_LIMIT_S
        while "network_compiled 1.0" not in client.get(f"{server.url}/metrics").text:
            if time.perf_counter() > until:
                raise SideError(f"compile=true was not done after {COMPILE_LIMIT_S} s; see {BUILD}")
            time.sleep(0.2)
        yield server


def litserve(checkpoint: Path, python: Path, **more: str) -> AbstractContextManager[Server]:
    return _served([str(python), "-m", "serve_sides.lit_server", _given(checkpoint, **more)], ready="/health")


def plain(checkpoint: Path, *, way: str) -> AbstractContextManager[Server]:
    """FastAPI that calls a pipeline for each request, `way` pipeline or eir."""
    return _served([sys.executable, "-m", "serve_sides.plain_server", _given(checkpoint, way=way)], ready="/health")


def _given(checkpoint: Path, **more: str) -> str:
    return json.dumps({"run": str(checkpoint.resolve()), "port": "{port}", **more})


@contextlib.contextmanager
def _served(command: list[str], *, ready: str) -> Iterator[Server]:
    """A server at a free port, put in for {port}."""
    BUILD.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    command = [word.replace("{port}", str(port)) for word in command]
    root = BENCHMARKS.parent
    environment = {**os.environ, "PYTHONPATH": f"{BENCHMARKS}{os.pathsep}{root}", "HF_HUB_OFFLINE": "1"}
    log, url, began = BUILD / f"{port}.log", f"http://127.0.0.1:{port}", time.perf_counter()
    with log.open("w") as said, httpx.Client(trust_env=False, timeout=1) as client:
        process = subprocess.Popen(
            command, env=environment, stdout=said, stderr=subprocess.STDOUT, cwd=root, start_new_session=True
        )
        try:
            while not _answers(client, f"{url}{ready}"):
                if process.poll() is not None or time.perf_counter() - began > START_LIMIT_S:
                    raise SideError(f"{' '.join(command[1:3])} did not start; see {log}")
                time.sleep(0.02)
            yield Server(url, time.perf_counter() - began, process.pid)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait()


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
