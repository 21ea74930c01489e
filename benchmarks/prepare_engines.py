"""The same shards by each engine: processes of this machine, tasks on Ray, and `datasets.map` writing the same tars.

    python benchmarks/prepare_engines.py [rounds=3] [pictures=8000] [size=64] [workers=2]

Every side reads the same parquet file of pictures of 300 px and ends with tars on disk. Starting its worker processes
counts. Ray itself runs already, as a cluster does; what starting it takes is a row of its own. `datasets.map` decodes,
crops, resizes and encodes with our own functions, and its tars are written by our `ShardWriter`, so that only the
engine differs. Sides alternate; ratios are medians over the rounds. Without `datasets` that side is left out, and so is
Ray without it.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prepare import paintings
from record import claim, command, figure, missing, write

from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.encode import key_of
from diffusion_art.shards.build.ray_engine import RayEngine
from diffusion_art.shards.reader import ShardWriter
from diffusion_art.sources.parquet.parquet import Parquet
from diffusion_art.sources.pictures import encode_jpeg, load_picture

DATASETS = "datasets.map"


def built(source: Path, out: Path, *, size: int, workers: int, engine: str) -> None:
    build_shards(
        Parquet(source), out, image_size_px=size, val_fraction=0.0, workers=workers, engine=engine, progress=False
    )


def mapped(source: Path, out: Path, *, size: int, workers: int) -> None:
    """As one would write it with `datasets`."""
    import datasets

    datasets.disable_progress_bars()
    cache = out.with_suffix(".cache")
    rows: Any = datasets.load_dataset(
        "parquet", data_files=str(source / "*.parquet"), split="train", cache_dir=str(cache)
    )
    done = rows.map(partial(encoded, size=size), num_proc=workers, remove_columns=rows.column_names)
    with ShardWriter(out, split="train") as writer:
        for row in done:
            writer.add(row["key"], row["jpg"], row["txt"], {"title": row["txt"]})
        writer.close()


def encoded(row: dict[str, Any], *, size: int) -> dict[str, Any]:
    data = row["image"]["bytes"]
    jpeg = encode_jpeg(load_picture(data, image_size_px=size)[0], quality=92)
    return {"key": key_of(data), "jpg": jpeg, "txt": f"{row['artist']} / {row['title']}"}


def digest(folder: Path) -> str:
    names = sorted(path for path in folder.iterdir() if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in names)).hexdigest()


def timed(side: Callable[[Path, Path], None], source: Path, pictures: int) -> tuple[float, str]:
    """Pictures/s, and what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        side(source, Path(folder) / "out")
        rate = pictures / (time.perf_counter() - started)
        return rate, digest(Path(folder) / "out")


def main(rounds: str = "3", pictures: str = "8000", size: str = "64", workers: str = "2") -> None:
    count, given = int(pictures), {"size": int(size), "workers": int(workers)}
    sides: dict[str, Callable[[Path, Path], None]] = {"local": partial(built, engine="local", **given)}
    if find_spec("ray"):
        sides["ray"] = partial(built, engine="ray", **given)
    if find_spec("datasets"):
        sides[DATASETS] = partial(mapped, **given)
    start_s = 0.0
    rates: dict[str, list[float]] = {name: [] for name in sides}
    digests: dict[str, set[str]] = {name: set() for name in sides}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        source = paintings(Path(folder), count)
        if "ray" in sides:
            started = time.perf_counter()
            stack.enter_context(RayEngine(int(workers)).connected())
            start_s = time.perf_counter() - started
        for number in range(int(rounds)):
            for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
                rate, made = timed(sides[name], source, count)
                rates[name].append(rate)
                digests[name].add(made)
            print(
                f"round {number + 1}: "
                + ", ".join(f"{name} {found[-1]:.0f} pictures/s" for name, found in rates.items())
            )
    told = {"rounds": rounds, "pictures": pictures, "size": size, "workers": workers}
    more = {"command": command("prepare_engines", **told)}
    rows = rows_of(rates, digests, int(workers), **more)
    if start_s:
        rows.append(figure("starting a Ray of this machine, s", start_s, **more))
    write("prepare_engines", rows)


def rows_of(
    rates: dict[str, list[float]], digests: dict[str, set[str]], workers: int, **more: Any
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    measure = f"prepare engine=ray, {workers} workers, pictures/s"
    if "ray" not in rates:
        return [missing(measure, "Ray is not installed")]
    for name, goal in (("local", 0.9), (DATASETS, 1.5)):
        if name not in rates:
            rows.append(missing(measure, f"{name} is not installed"))
            continue
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["ray"], rates[name]))
        rows.append(
            claim(
                measure,
                ours=statistics.median(rates["ray"]),
                peer=statistics.median(rates[name]),
                peer_name="engine=local" if name == "local" else f"{name}(num_proc={workers}), the same tars",
                ratio=ratio,
                goal=f">= {goal}",
                holds=ratio >= goal,
                same_bytes=len(digests["ray"] | digests["local"]) == 1,
                **more,
            )
        )
    return rows


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
