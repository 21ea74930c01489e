"""What size costs the stream: opening, memory and resuming a set of 100 million samples, and WikiArt's memory.

    python benchmarks/stream_scale.py [rounds=5] [samples=100000000] [quick=true]

The large set is synthetic: 10,000 shards as sparse files and an index that is written where it will be looked at,
with one real JPEG in each shard that the batches asked for lie in. Opening is timed in a fresh process, as is the
memory it takes. Resuming is the time from a data set told to begin at sample 1,000,000 to its first batch of 64
decoded pictures, over a socket from a server that runs already, for the first and the last of 1, 2, 4 and 8 ranks;
the ranks' slices, put together, are compared with the order of one rank. `quick=true` is a set of two million
samples, printed and not recorded.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from record import below, command, machine, none, write

from diffusion_art.data.dataset import StreamDataset
from diffusion_art.shards.manifest import FORMAT, MANIFEST_FILE, VERSION
from diffusion_art.shards.order import EpochOrder, spans
from diffusion_art.shards.reader import ShardInfo, ShardSet
from diffusion_art.shards.tables import INDEX_ROW
from diffusion_art.streaming.client.readers import StreamClient
from diffusion_art.streaming.server.process import ServerProcess

EACH = 10_000  # samples of a shard
SHARD_BYTES = 2**27
IMAGE_PX = 128
BATCH = 64
RESUME_AT = 1_000_000
WIKIART = 103_250

OPEN = """
import sys, time
from diffusion_art.shards.reader import ShardSet
began = time.perf_counter()
shards = ShardSet.open(sys.argv[1])
opened = time.perf_counter() - began
shards.key("train", shards.splits["train"] // 3)
most = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(opened, most / 2**20)
"""
EPOCH = """
import sys
import numpy as np
from diffusion_art.streaming.answer import frames
from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.wire import Read
def anonymous():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))
shards = ShardSet.open(sys.argv[1])
samples, before = shards.splits["train"], anonymous()
most = 0.0
for start in range(0, samples, 64):
    read = Read(0, "train", 0, 0, start, min(start + 64, samples))
    for frame in frames(shards, read, shards.samples("train", 0, 0, read.start, read.stop)):
        b"".join(frame)
    if start % 6400 == 0:
        most = max(most, anonymous())
print(before, most)
"""


def synthetic(folder: Path, samples: int, *, read: list[np.ndarray]) -> Path:
    """A shard folder of `samples` that costs no disk; the samples in `read` hold a picture each."""
    folder.mkdir(parents=True)
    count = -(-samples // EACH)
    sizes = [min(EACH, samples - EACH * i) for i in range(count)]
    infos = [ShardInfo(f"train-{i:06d}.tar", size, SHARD_BYTES, "0" * 64) for i, size in enumerate(sizes)]
    index = folder / "index-train.npy"
    rows = np.lib.format.open_memmap(index, mode="w+", dtype=INDEX_ROW, shape=(samples,))
    edges = np.unique(
        np.concatenate([np.arange(0, samples, EACH), np.append(np.arange(EACH, samples, EACH), samples) - 1])
    )
    touched = np.unique(np.concatenate([edges, *read]))
    image = jpeg()
    rows["shard"][touched] = touched // EACH
    rows["key"][touched] = touched
    rows["image_offset"][touched] = 512
    rows["image_length"][touched] = len(image)
    rows["caption_offset"][touched] = 512 + len(image)
    rows.flush()
    with_picture = set((np.concatenate([np.empty(0, np.int64), *read]) // EACH).tolist())
    for number, info in enumerate(infos):
        with (folder / info.file).open("wb") as file:
            if number in with_picture:
                file.seek(512)
                file.write(image)
            file.truncate(SHARD_BYTES)
    entry = {"file": index.name, "samples": samples, "bytes": index.stat().st_size, "sha256": "0" * 64}
    split = {"samples": samples, "index": entry, "shards": [vars(info) for info in infos]}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": "synthetic",
        "image_size_px": IMAGE_PX,
        "caption_template": None,
        "builder_version": "0",
        "extra": {},
        "splits": {"train": split},
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder


def jpeg() -> bytes:
    """A picture of about 9 kB."""
    noise = np.random.default_rng(0).integers(0, 256, (IMAGE_PX // 4, IMAGE_PX // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def places(samples: int, digest: str, start: int, stop: int) -> list[np.ndarray]:
    """The samples at endless positions [start, stop) of seed 0."""
    return [
        EpochOrder(samples, seed=0, epoch=epoch, split="train", digest=digest)(np.arange(first, end))
        for epoch, first, end in spans(samples, start, stop - start)
    ]


def in_fresh_process(program: str, folder: Path) -> list[float]:
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def first_batch(url: str, samples: int, *, rank: int, world: int) -> tuple[float, list[str]]:
    """Milliseconds from here to the first batch after RESUME_AT, and its keys."""
    first = RESUME_AT // BATCH
    dataset = StreamDataset(
        partial(StreamClient, url),
        split="train",
        seed=0,
        samples=samples,
        global_batch_size=BATCH,
        last_batch=first + 4,
        image_size_px=IMAGE_PX,
        first_batch=lambda: first,
        rank=rank,
        world=world,
    )
    dataset.settle()
    began = time.perf_counter()
    batches = iter(dataset)
    batch = next(batches)
    elapsed_ms = 1e3 * (time.perf_counter() - began)
    batches.close()
    return elapsed_ms, batch.keys


def resume(folder: Path, samples: int, rounds: int) -> tuple[dict[int, list[float]], int]:
    """Milliseconds to the first batch by number of ranks, and how often the ranks' slices were not the one order."""
    times: dict[int, list[float]] = {world: [] for world in (1, 2, 4, 8)}
    others = 0
    digest = ShardSet.open(folder).digest
    expected = [f"{key:016x}" for key in np.concatenate(places(samples, digest, RESUME_AT, RESUME_AT + BATCH)).tolist()]
    with ServerProcess(folder) as server:
        first_batch(server.url, samples, rank=0, world=1)  # imports, and the decoder's first call
        for _ in range(rounds):
            for world, measured in times.items():
                shares = [first_batch(server.url, samples, rank=rank, world=world) for rank in range(world)]
                measured += [shares[0][0], shares[-1][0]]
                others += [key for _, keys in shares for key in keys] != expected
    return times, others


def main(rounds: int = 5, samples: int = 100_000_000, quick: bool = False) -> list[dict]:
    """All claims; RESULTS.md unless `quick`."""
    samples, rounds = (2_000_000, 2) if quick else (samples, rounds)
    more = {**machine(), "command": command("stream_scale", rounds=rounds, samples=samples), "rounds": rounds}
    rows = []
    with tempfile.TemporaryDirectory(prefix="stream-scale-") as root:
        # The order needs the digest, which the shards' names and counts alone decide.
        digest = ShardSet.open(synthetic(Path(root) / "empty", samples, read=[])).digest
        read = places(samples, digest, RESUME_AT, RESUME_AT + 4 * BATCH)
        folder = synthetic(Path(root) / "large", samples, read=read)
        opened = [in_fresh_process(OPEN, folder) for _ in range(rounds)]
        seconds, gigabytes = (statistics.median(column) for column in zip(*opened))
        size = f"{samples / 1e6:g} M samples"
        rows.append(below(f"open {size}, s", seconds, 5, goal="< 5 s", **more))
        measure = f"memory of a process that has opened {size}, GiB"
        rows.append(below(measure, gigabytes, 2, goal="< 2 GiB", **more))
        times, others = resume(folder, samples, rounds)
        for world, measured in times.items():
            measure = f"first batch of {BATCH // world} after resuming at {RESUME_AT:,} of {size}, {world} ranks, ms"
            rows.append(below(measure, statistics.median(measured), 50, goal="< 50 ms", **more))
        rows.append(none("resumed batches whose ranks do not see the order of one rank", others, **more))
        everything = [np.arange(WIKIART)]
        before, most = in_fresh_process(EPOCH, synthetic(Path(root) / "wikiart", WIKIART, read=everything))
        measure = f"memory an epoch of {WIKIART:,} samples adds to a server, MiB"
        rows.append(below(measure, most - before, 100, goal="< 100 MiB", **more))
    if not quick:
        write("stream_scale", rows)
    return rows


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    main(int(given.get("rounds", 5)), int(given.get("samples", 100_000_000)), quick=given.get("quick") == "true")
