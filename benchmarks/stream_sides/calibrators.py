"""What the machine itself can do: JPEG decoding, TCP over loopback, copying memory.

    python -m stream_sides.calibrators '{"folder": "...", "what": "decode", "seconds": 2, "cores": 1}'

`decode` is the bare loop that no loader can beat: pictures in memory, decoded by simplejpeg straight into the rows
of a batch that is already there, in `cores` processes at once (samples/s of all of them together).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import numpy as np
import simplejpeg
from stream_peers.meter import report

from diffusion_art.shards.reader import ShardSet


def decode(folder: Path, seconds: float, cores: int) -> float:
    """Decoded samples/s of `cores` processes at once."""
    shards = ShardSet.open(folder)
    count = min(1024, shards.splits["train"])
    pictures = [bytes(shards.read("train", i).image) for i in range(count)]
    side = shards.image_size_px
    read_end, write_end = os.pipe()
    children = []
    for _ in range(cores):
        if (child := os.fork()) == 0:
            rate = _decode_loop(pictures, np.empty((64, side, side, 3), np.uint8), seconds)
            os.write(write_end, f"{rate}\n".encode())
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    os.close(write_end)
    with os.fdopen(read_end) as answers:
        return sum(float(line) for line in answers)


def _decode_loop(pictures: list[bytes], rows: np.ndarray, seconds: float) -> float:
    for picture in pictures[:64]:
        simplejpeg.decode_jpeg(picture, colorspace="RGB", buffer=rows[0])
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for i, picture in enumerate(pictures):
            simplejpeg.decode_jpeg(picture, colorspace="RGB", buffer=rows[i % len(rows)])
        done += len(pictures)
    return done / (time.perf_counter() - began)


def loopback(seconds: float) -> float:
    """GB/s through one TCP connection over loopback, a megabyte a call, a process on each end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if (child := os.fork()) == 0:
            with socket.create_connection(listener.getsockname()) as sink:
                data = bytes(2**20)
                ends = time.perf_counter() + seconds + 0.3
                while time.perf_counter() < ends:
                    sink.sendall(data)
            os._exit(0)
        source, _ = listener.accept()
    buffer = memoryview(bytearray(2**20))
    with source:
        warm = time.perf_counter() + 0.2
        while time.perf_counter() < warm:
            source.recv_into(buffer)
        received, began = 0, time.perf_counter()
        while count := source.recv_into(buffer):
            received += count
        took = time.perf_counter() - began
    os.waitpid(child, 0)
    return received / took / 1e9


def memcpy(seconds: float) -> float:
    """GB/s of one thread copying 64 MiB, more than the caches hold."""
    source, sink = np.ones(2**26, np.uint8), np.zeros(2**26, np.uint8)
    copies, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        np.copyto(sink, source)
        copies += 1
    return copies * source.nbytes / (time.perf_counter() - began) / 1e9


def main(what: str, seconds: float, folder: str, cores: int = 1) -> None:
    if what == "decode":
        report(rate=decode(Path(folder), seconds, cores))
    else:
        report(rate={"loopback": loopback, "memcpy": memcpy}[what](seconds))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
