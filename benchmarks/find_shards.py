"""How long `train` takes to find the shards of an unchanged folder again: by names, sizes and times of its files.

    python benchmarks/find_shards.py [files=100000] [rounds=5]

The folder has `files` files in a hundred folders: pictures and a text beside each, of which the first are real and
built (data.build.limit), since only the finding is timed. The bare side stats the same files by `os.scandir`, once
each and nothing else. Sides alternate; the figure is the median over the rounds.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from record import claim, command, write

from diffusion_art.shards.build.locate import Shards
from diffusion_art.sources.painter import Painter

_BUILT = 48  # pictures


def make(folder: Path, files: int) -> None:
    """`files` files, half of them pictures; those of the first folder can be read."""
    painter = Painter(count=_BUILT, image_size_px=16)
    for number in range(files // 2):
        inner = folder / f"{number * 200 // files:03d}"
        if number * 200 // files != (number - 1) * 200 // files or number == 0:
            inner.mkdir()
        if number < _BUILT:
            Image.fromarray(painter.paint(number).image).save(inner / f"{number:06d}.png")
        else:
            (inner / f"{number:06d}.png").write_bytes(b"\x89PNG")
        (inner / f"{number:06d}.txt").write_text(f"painting {number}")


def bare(folder: Path) -> int:
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            entry.stat()
            count += bare(Path(entry.path)) if entry.is_dir() else 1
    return count


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main(files: str = "100000", rounds: str = "5") -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "pictures").mkdir()
        make(root / "pictures", int(files))
        asked = {"image_size_px": 16, "build": {"val_fraction": 0.1, "limit": _BUILT}}
        find = Shards(root / "pictures", root / "data", **asked).ready
        print(f"first: {timed(find):.2f} s, the build of {_BUILT} pictures included")
        ours, theirs = [], []
        for number in range(int(rounds)):
            sides = [(ours, find), (theirs, lambda: bare(root / "pictures"))]
            for times, side in sides if number % 2 == 0 else sides[::-1]:
                times.append(timed(side))
            print(f"round {number + 1}: {ours[-1]:.3f} s, bare {theirs[-1]:.3f} s")
    seconds = statistics.median(ours)
    row = claim(
        f"train finds the shards of an unchanged folder of {int(files):,} files again, s",
        ours=seconds,
        peer=statistics.median(theirs),
        peer_name="os.scandir and stat alone",
        ratio=seconds,
        goal="<= 1 s",
        holds=seconds <= 1,
        files=int(files),
        rounds=int(rounds),
        command=command("find_shards", files=files, rounds=rounds),
    )
    write("find_shards", [row])


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
