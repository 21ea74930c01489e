#!/usr/bin/env bash
# datasets 5.2.0, pillow 13.0.0: pictures are made small once, before training, with `map`. One would guess that the picture which the
# function returns is stored. It is not if Pillow changed it in place, as `thumbnail` and `ImageDraw` do: a picture that was
# opened from a file still has that file's name, and the name is stored instead of the pixels. So the data set has the full size
# again, and still needs the files it came from. A later `to_parquet` or upload writes the big files. `resize` returns a new picture
# without a name, and is kept. Within the function both look alike. `image.copy()` before `thumbnail` repairs it.
# Seen: thumbnail (600, 400); drawn on: black again; copy and thumbnail (64, 43); resize (64, 43).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check datasets==5.2.0 pillow==13.0.0 numpy
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
"$work/venv/bin/python" - "$work" <<'PY'
import sys
from pathlib import Path

from datasets import load_dataset
from PIL import Image, ImageDraw

folder = Path(sys.argv[1]) / "art"
folder.mkdir()
for name in "ab":
    Image.new("RGB", (600, 400)).save(folder / f"{name}.jpg")
art = load_dataset("imagefolder", data_dir=str(folder), split="train")


def thumbnail(row):
    row["image"].thumbnail((64, 64))
    assert row["image"].size == (64, 43)
    return row


def copied(row):
    return thumbnail({**row, "image": row["image"].copy()})


def resized(row):
    return {**row, "image": row["image"].resize((64, 43))}


def drawn(row):
    ImageDraw.Draw(row["image"]).rectangle((0, 0, 600, 400), fill="white")
    assert row["image"].getpixel((300, 200)) == (255, 255, 255)
    return row


sizes = {change.__name__: art.map(change)[0]["image"].size for change in (thumbnail, copied, resized)}
pixel = art.map(drawn)[0]["image"].getpixel((300, 200))
print("sizes stored:", sizes)
print("painted white, stored:", pixel)
assert sizes == {"thumbnail": (600, 400), "copied": (64, 43), "resized": (64, 43)}, sizes
assert pixel == (0, 0, 0), pixel
PY
