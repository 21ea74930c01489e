#!/usr/bin/env bash
# litdata 0.2.76, mosaicml-streaming 0.13.0, pillow 13.0.0, torch 2.14.1: `optimize` of litdata stores any PIL picture that it is handed, and `MDSWriter` does with the
# column type "pil", which is there to store pictures as they are. One would guess that the same picture comes back. Its mode, its size and its bytes do, and the bytes
# of a picture with a palette are numbers of colours: the palette itself is not stored. So each PNG or GIF with up to 256 colours, as clip art, prints and pixel art
# mostly are, comes back with pillow's default palette, which is grey, and its greys are the numbers of its colours. Captions tell of red and blue, and training sees
# neither. Nothing is said. Convert to RGB before pictures are stored.
# Seen: of a picture with 64 colours: values are off by 129 of 255 on average with litdata and with MDS, and the greatest difference between red, green and blue of
# a pixel is 0, where it was 208; converted to RGB before, off by 0.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 litdata==0.2.76 mosaicml-streaming==0.13.0 \
  pillow==13.0.0 numpy
cat >"$work/palette.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from litdata import StreamingDataset, optimize
from PIL import Image
from streaming import MDSWriter
from streaming import StreamingDataset as MDSDataset

FOLDER = sys.argv[1]


def opened(path):
    return {"image": Image.open(path), "caption": "red and blue"}


def converted(path):
    return {"image": Image.open(path).convert("RGB"), "caption": "red and blue"}


def by_litdata(read):
    folder = f"{FOLDER}/litdata_{read.__name__}"
    optimize(fn=read, inputs=[f"{FOLDER}/art.png"], output_dir=folder, chunk_bytes="1MB", num_workers=1)
    return StreamingDataset(folder)[0]["image"]


def by_mds(read):
    folder = f"{FOLDER}/mds_{read.__name__}"
    with MDSWriter(out=folder, columns={"image": "pil", "caption": "str"}) as writer:
        writer.write(read(f"{FOLDER}/art.png"))
    return MDSDataset(local=folder, batch_size=1)[0]["image"]


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


if __name__ == "__main__":
    print(*(f"{name} {version(name)}" for name in ("litdata", "mosaicml-streaming", "pillow")))
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((96, 64), Image.Resampling.BICUBIC).quantize(64).save(f"{FOLDER}/art.png")
    art = pixels(Image.open(f"{FOLDER}/art.png"))
    for store in (by_litdata, by_mds):
        for read in (opened, converted):
            got = pixels(store(read))
            off, colourful = np.abs(got - art).mean(), np.ptp(got, axis=-1).max()
            print(f"{store.__name__}, {read.__name__}: off by {off:.0f} of 255; red, green and blue of a pixel differ by up to {colourful}")
            assert colourful == (0 if read is opened else np.ptp(art, axis=-1).max()), colourful
            assert off > 50 if read is opened else off == 0, off
PY
cd "$work" && OMP_NUM_THREADS=1 venv/bin/python -W ignore palette.py "$work" >out.txt 2>errors.txt || { cat out.txt errors.txt; exit 1; }
grep "^litdata \|^by_" out.txt
