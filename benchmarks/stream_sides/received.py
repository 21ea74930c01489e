"""What a protocol itself costs: samples in the client's hands, pictures still encoded, per CPU second of both ends.

    python -m stream_sides.received '{"folder": "...", "protocol": "v2", "batch": 128, "seconds": 3}'

One server process, one client in this one: `v2` and `v1` are our clients, `v1 plain` is json and base64.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterator, Sized
from itertools import count

import psutil
from stream_peers.meter import report

from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.eir.client import EirReader
from diffusion_art.streaming.server.process import ServerProcess
from stream_sides.plain_v1 import answers


def batches(protocol: str, url: str, batch: int) -> Iterator[Sized]:
    """Batches of samples without end."""
    if protocol == "v1 plain":
        for samples in answers(url, batch):
            yield [(s["inputs"]["caption"], base64.b64decode(s["target_labels"]["image"]["image"])) for s in samples]
    reader = StreamClient(url) if protocol == "v2" else EirReader(url)
    yield from reader.read(ReadRequest("train", seed=0, start=batch * k, stop=batch * (k + 1)) for k in count())


def main(folder: str, protocol: str, batch: int, seconds: float, warm_s: float = 0.5) -> None:
    with ServerProcess(folder) as server:
        ends = [psutil.Process(), psutil.Process(server.pid)]
        coming = batches(protocol, server.url, batch)
        warm = time.perf_counter() + warm_s
        while time.perf_counter() < warm:
            next(coming)
        came, began, cpu = 0, time.perf_counter(), _cpu_s(ends)
        while time.perf_counter() - began < seconds:
            came += len(next(coming))
        report(rate=came / (_cpu_s(ends) - cpu), samples=came)


def _cpu_s(ends: list[psutil.Process]) -> float:
    return sum(sum(end.cpu_times()[:2]) for end in ends)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
