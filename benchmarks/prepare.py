"""How fast `prepare` is: painted pictures per second, and parquet against the bare work on each picture.

    python benchmarks/prepare.py [rounds=3] [pictures=10000] [size=64] [path=FOLDER_OF_PARQUET_FILES]

Ours is a whole build, from starting the processes to the manifest. The bare sides only decode, crop, resize
and encode pictures that already lie in each process's memory, on as many processes, the start of which is not
counted: once as one would write it in Pillow, once with the very functions `prepare` uses. Sides alternate;
the ratio is the median over the rounds. Without `path` the pictures are paintings of 300 px in WikiArt's layout.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from record import claim, command, write

from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.engine import ordered_map, usable_cores
from diffusion_art.sources.base import Picture, Source
from diffusion_art.sources.painter import Painter
from diffusion_art.sources.parquet.parquet import Parquet
from diffusion_art.sources.pictures import encode_jpeg, load_picture


def pillow(data: bytes, size: int) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def own(data: bytes, size: int) -> bytes:
    return encode_jpeg(load_picture(data, image_size_px=size)[0], quality=92)


def timed(function: Callable[[bytes, int], bytes], size: int, pictures: list[bytes]) -> float:
    """Pictures/s of one process."""
    for data in pictures[:20]:
        function(data, size)
    started = time.perf_counter()
    for data in pictures:
        function(data, size)
    return len(pictures) / (time.perf_counter() - started)


def bare(name: str, size: int, pictures: list[bytes]) -> float:
    """Pictures/s of the function `name` on all cores together."""
    import prepare  # this file, by the name under which worker processes find it

    task = partial(prepare.timed, getattr(prepare, name), size)
    cores = usable_cores()
    shares = [pictures[core::cores] for core in range(cores)]
    return sum(ordered_map(task, shares, workers=cores))


def whole(source: Source, size: int) -> float:
    """Pictures/s of a build."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        manifest = build_shards(source, Path(folder) / "out", image_size_px=size, progress=False)
        return sum(manifest.splits.values()) / (time.perf_counter() - started)


def paintings(folder: Path, count: int) -> Path:
    """`count` pictures of 300 px, no two alike: windows on a hundred larger paintings."""
    painter = Painter(count=100, image_size_px=384)
    painted = [Image.fromarray(painter.paint(index).image) for index in range(100)]
    rows = []
    for number in range(count):
        x, y = number // 100 % 80, number // 40 % 80
        buffer = io.BytesIO()
        painted[number % 100].crop((x, y, x + 300, y + 300)).save(buffer, "JPEG", quality=90)
        rows.append({"title": str(number), "artist": "a", "image": {"bytes": buffer.getvalue(), "path": None}})
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("title", pa.string()), ("artist", pa.string()), ("image", image)])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "train.parquet", row_group_size=1000)
    return folder


def main(rounds: str = "3", pictures: str = "10000", size: str = "64", path: str = "") -> None:
    size_px = int(size)
    painted, shards, in_pillow, in_own = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        source = Parquet(path or paintings(Path(folder), int(pictures)))
        every = (item for chunk in source.chunks() for item in source.pictures(chunk))
        data = [item.image for item in islice(every, int(pictures)) if isinstance(item, Picture)]
        sides = [
            (painted, lambda: whole(Painter(count=int(pictures), image_size_px=32), 32)),
            (shards, lambda: whole(source, size_px)),
            (in_pillow, lambda: bare("pillow", size_px, data)),
            (in_own, lambda: bare("own", size_px, data)),
        ]
        for number in range(int(rounds)):
            for rates, side in sides if number % 2 == 0 else sides[::-1]:
                rates.append(side())
            latest = [round(rates[-1]) for rates, _ in sides]
            print(
                "round {}: painter {}, parquet {}, Pillow {}, own functions {} pictures/s".format(number + 1, *latest)
            )
    given = {"rounds": rounds, "pictures": pictures, "size": size} | ({"path": path} if path else {})
    more = {"cores": usable_cores(), "rounds": int(rounds), "command": command("prepare", **given)}
    rate = statistics.median(painted)
    rows = [
        claim(
            "prepare source=painter, 32 px, pictures/s on all cores",
            ours=rate,
            peer=500,
            peer_name="the rate asked for",
            ratio=rate / 500,
            goal=">= 1",
            holds=rate >= 500,
            **more,
        )
    ]
    for name, rates in (("bare Pillow loop", in_pillow), ("bare loop of our own functions", in_own)):
        ratio = statistics.median(ours / theirs for ours, theirs in zip(shards, rates))
        rows.append(
            claim(
                f"prepare source=parquet, {size} px, pictures/s on all cores",
                ours=statistics.median(shards),
                peer=statistics.median(rates),
                peer_name=name,
                ratio=ratio,
                goal=">= 0.6",
                holds=ratio >= 0.6,
                **more,
            )
        )
    write("prepare", rows)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
