"""Shards in a bucket against shards on disk, and the start of a server on a bucket with 10,000 shards.

    python benchmarks/remote.py [rounds=5] [pictures=16384] [size_px=64,128] [workers=2]

The S3 is moto's server on this machine, in a process of its own that shares the cores. An epoch is read as a training
run reads it (stream_sides/epochs.py); in the first one from the bucket the cache is empty, in the second it has every
shard. The disk's side reads the same shards from their folder, which is in the page cache, as copies that have
just been written are. Sides alternate; a ratio is the median over the rounds. A cache is removed after its round: on a
virtual machine, memory that was never used before takes several times as long to write to. The bucket of 10,000
shards has a manifest and an index of a million samples and no shard at all, so a server that starts on it cannot have
read one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from record import below, claim, command, machine, write
from stream_sides.pictures import pictures as painted
from stream_sides.running import run

from diffusion_art.shards.manifest import MANIFEST_FILE, Manifest, ShardInfo, sha256_of
from diffusion_art.shards.tables import INDEX_ROW

BATCH = 64
MANY, EACH = 10_000, 100  # shards, samples of each
GOALS = {"epoch 1": 0.7, "epoch 2": 0.95}
KEYS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3() -> Iterator[Any]:
    """A client of a local S3, whose address and keys are in the environment meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        os.environ |= {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bench")
        yield client
    finally:
        server.terminate()
        server.wait()


def upload(client: Any, folder: Path, name: str) -> str:
    """The address of a copy of `folder` in the bucket."""
    for file in sorted(folder.iterdir()):
        client.put_object(Bucket="bench", Key=f"{name}/{file.name}", Body=file.read_bytes())
    return f"s3://bench/{name}"


def many(folder: Path) -> Path:
    """Manifest and index of MANY shards that are not there."""
    folder.mkdir()
    rows = np.zeros(MANY * EACH, INDEX_ROW)
    rows["key"] = np.arange(len(rows))
    rows["shard"] = np.arange(len(rows)) // EACH
    rows["image_offset"], rows["image_length"] = 512, 9000
    index = folder / "index-train.npy"
    np.save(index, rows)
    shards = tuple(ShardInfo(f"train-{number:06d}.tar", EACH, 2**20, "0" * 64) for number in range(MANY))
    info = ShardInfo(index.name, len(rows), index.stat().st_size, sha256_of(index))
    manifest = Manifest("many", 128, None, "0", {"train": shards}, {"train": info})
    (folder / MANIFEST_FILE).write_text(manifest.to_json())
    return folder


def start(address: str, cache: Path) -> float:
    """Seconds from the command to a server that clients can connect to; the cache is empty."""
    words = [f"data.path={address}", f"data.remote.cache={cache}", "port=0"]
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "diffusion_art.stream", *words], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert server.stdout is not None
        next(line for line in server.stdout if "ws://" in line)
        return time.perf_counter() - began
    finally:
        server.terminate()
        server.wait()


def epochs(address: str, folder: Path, root: Path, *, rounds: int, workers: int) -> dict[str, dict[str, list[float]]]:
    """Pictures per second by side and epoch."""
    found: dict[str, dict[str, list[float]]] = {side: {name: [] for name in GOALS} for side in ("bucket", "disk")}
    paths = {"bucket": address, "disk": str(folder)}
    for number in range(rounds):
        for side in paths if number % 2 == 0 else reversed(paths):
            cache = root / f"cache-{side}-{number}"
            asked = {"path": paths[side], "cache": str(cache), "workers": workers, "batch": BATCH, "epochs": 2}
            for name, rate in run(sys.executable, "stream_sides.epochs", asked, limit_s=600).items():
                found[side][name].append(rate)
            shutil.rmtree(cache, ignore_errors=True)
        told = {side: {name: round(rates[-1]) for name, rates in by.items()} for side, by in found.items()}
        print(f"round {number + 1}: {json.dumps(told)}", flush=True)
    return found


def claims(found: dict[str, dict[str, list[float]]], *, size_px: int) -> list[dict[str, Any]]:
    """Of each epoch, the bucket's pace over the disk's."""
    rows = []
    for epoch, goal in GOALS.items():
        ours, theirs = found["bucket"][epoch], found["disk"][epoch]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        ratio = statistics.median(ratios)
        which = "first" if epoch == "epoch 1" else "second"
        rows.append(
            claim(
                f"{which} epoch of a stream from a bucket, {size_px} px, pictures/s",
                ours=statistics.median(ours),
                peer=statistics.median(theirs),
                peer_name="the same shards on disk",
                ratio=ratio,
                goal=f">= {goal:g}",
                holds=ratio >= goal,
                ratios=[round(each, 3) for each in ratios],
            )
        )
    return rows


def main(rounds: str = "5", pictures: str = "16384", size_px: str = "64,128", workers: str = "2") -> None:
    line = command("remote", rounds=rounds, pictures=pictures, size_px=size_px, workers=workers)
    more = {**machine(), "command": line, "rounds": int(rounds)}
    rows = []
    with tempfile.TemporaryDirectory(prefix="remote-") as name, s3() as client:
        root = Path(name)
        for px in map(int, size_px.split(",")):
            (place := root / f"{px}px").mkdir()
            folder = painted(place, count=int(pictures), size_px=px)
            address = upload(client, folder, f"set-{px}px")
            found = epochs(address, folder, place, rounds=int(rounds), workers=int(workers))
            rows += [row | more for row in claims(found, size_px=px)]
        large = upload(client, many(root / "many"), "many")
        seconds = statistics.median(start(large, root / f"cache-many-{number}") for number in range(int(rounds)))
        measure = f"start of a server on a bucket of {MANY:,} shards, {MANY * EACH:,} samples, s"
        rows.append(below(measure, seconds, 10, goal="< 10 s", **more))
    write("remote", rows)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
