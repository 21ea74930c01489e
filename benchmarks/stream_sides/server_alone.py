"""A server without a client to speak of: samples sent per second of the server's own CPU time, and per second.

    python -m stream_sides.server_alone '{"folder": "...", "protocol": "v2", "seconds": 3}'

One server process, one client that reads and counts. v1 asks for 64 samples at a time, four requests ahead; v2
for 512 samples of the shuffled order, eight requests ahead. With `eir`, the name of a Python that has `datasets`,
the server is that of `eir_streamer.py` reading `folder`, a folder of parquet files, and sends 32 samples at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psutil
from stream_peers.meter import report

from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.wire import SUBPROTOCOL, Hello, Read, pack_message
from stream_sides.raw import BINARY, TEXT, RawClient

_SEED = 0


def answers_v2(url: str, samples: int, *, ahead: int = 8, size: int = 512) -> Iterator[int]:
    """Samples in each frame, for ever."""
    client = RawClient(url, SUBPROTOCOL)
    client.send(pack_message(Hello()))
    client.receive()
    asked = _reads(samples, size)
    for _ in range(ahead):
        client.send(next(asked))
    while True:
        kind, head, _ = client.receive()
        if kind != BINARY:
            raise SystemExit(f"the server says {head!r}")
        if int.from_bytes(head[6:8], "little") & 1:  # flagged: the last frame of its request
            client.send(next(asked))
        yield int.from_bytes(head[12:16], "little")


def _reads(samples: int, size: int) -> Iterator[str]:
    number = count()
    for epoch in count():
        for start in range(0, samples, size):
            yield pack_message(Read(next(number), "train", _SEED, epoch, start, min(start + size, samples)))


def answers_v1(url: str, *, ahead: int = 4, size: int = 64) -> Iterator[int]:
    """Samples in each message, for ever: the server begins its epochs by itself."""
    client = RawClient(url, None, head=64)
    client.send(json.dumps({"type": "handshake", "version": "1.0", "worker_id": 0}))
    client.receive()
    ask = json.dumps({"type": "getData", "payload": {"batch_size": size}})
    for _ in range(ahead):
        client.send(ask)
    while True:
        kind, head, _ = client.receive()
        if kind != TEXT or not head.startswith(b'{"type":"data","payload":[{'):
            raise SystemExit(f"the server says {head!r}")
        client.send(ask)
        yield size


@contextlib.contextmanager
def eir_streamer(python: str, parquet: Path) -> Iterator[tuple[str, int]]:
    """Address and process of EIR's streamer re-created."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = {"folder": str(parquet), "cache": str(parquet.parent / "datasets-cache"), "port": port}
    command = [python, "-m", "stream_sides.eir_streamer", json.dumps(given)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None:
                break
            time.sleep(0.1)
        yield f"ws://127.0.0.1:{port}/ws", process.pid
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def our_server(folder: str) -> Iterator[tuple[str, int]]:
    with ServerProcess(folder) as server:
        assert server.pid is not None
        yield server.url, server.pid


def main(folder: str, protocol: str, seconds: float, warm_s: float = 0.5, eir: str | None = None) -> None:
    started = our_server(folder) if eir is None else eir_streamer(eir, Path(folder))
    with started as (url, pid):
        process = psutil.Process(pid)
        if protocol == "v2":
            answers = answers_v2(url, ShardSet.open(folder).splits["train"])
        else:
            answers = answers_v1(url, size=64 if eir is None else 32)
        if eir is not None:  # its queues are full when it starts; what it does for a sample shows when they are not
            warm_s = max(warm_s, 4.0)
        warm = time.perf_counter() + warm_s
        while time.perf_counter() < warm:
            next(answers)
        sent, began, cpu = 0, time.perf_counter(), _cpu_s(process)
        while time.perf_counter() - began < seconds:
            sent += next(answers)
        used, took = _cpu_s(process) - cpu, time.perf_counter() - began
        report(rate=sent / used, wall_rate=sent / took, cpu_share=used / took, samples=sent)


def _cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and of those it started."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
