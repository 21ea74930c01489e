#!/usr/bin/env bash
# imagehash 4.3.2, cleanvision 0.3.7, pillow 13.0.0: hashes of how pictures look are what near duplicates are found by before a training. One would guess that different
# drawings have different hashes. Each hash turns a picture to grey first, which leaves its alpha channel out, and the colour of what is transparent in a PNG is mostly
# black: black lines on a transparent ground, as clip art, sketches and logos are stored, are a black square. So all such drawings have one hash, for each of six kinds,
# and are 0 apart; cleanvision, which is built on it, calls all of them near duplicates and dark. A collection of clip art is thinned out to one
# picture. Nothing is said. Paste pictures onto white before they are hashed.
# Seen: 20 drawings of 6 black lines each, all different: 1 hash of phash, dhash, average_hash, whash, colorhash and crop_resistant_hash, and 20 of 20 near duplicates
# for cleanvision, 20 dark; on white: 20 hashes of phash, and 0 near duplicates, 0 dark.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check imagehash==4.3.2 cleanvision==0.3.7 pillow==13.0.0
cat >"$work/hashes.py" <<'PY'
import random
import sys
from importlib.metadata import version
from pathlib import Path

import imagehash
from cleanvision import Imagelab
from PIL import Image, ImageDraw

DRAWINGS = 20
HASHES = (
    imagehash.phash,
    imagehash.dhash,
    imagehash.average_hash,
    imagehash.whash,
    imagehash.colorhash,
    imagehash.crop_resistant_hash,
)


def drawings():
    """Black lines on a transparent ground."""
    rng = random.Random(0)
    for _ in range(DRAWINGS):
        drawing = Image.new("RGBA", (128, 128), (0, 0, 0, 0))
        for _ in range(6):
            ImageDraw.Draw(drawing).line([rng.randrange(128) for _ in range(4)], fill=(0, 0, 0, 255), width=6)
        yield drawing


def on_white(drawing):
    page = Image.new("RGBA", drawing.size, "white")
    page.alpha_composite(drawing)
    return page.convert("RGB")


def issues(folder):
    """How many pictures cleanvision finds fault with, by kind."""
    lab = Imagelab(data_path=str(folder))
    lab.find_issues({"near_duplicates": {}, "dark": {}}, n_jobs=1, verbose=False)
    return {kind: int(lab.issues[f"is_{kind}_issue"].sum()) for kind in ("near_duplicates", "dark")}


if __name__ == "__main__":
    print(*(f"{name} {version(name)}" for name in ("imagehash", "cleanvision", "pillow")))
    found = {}
    for ground, made in (("transparent", list(drawings())), ("white", [on_white(drawing) for drawing in drawings()])):
        folder = Path(sys.argv[1]) / ground
        folder.mkdir()
        for number, drawing in enumerate(made):
            drawing.save(folder / f"{number:02d}.png")
        opened = [Image.open(path) for path in sorted(folder.iterdir())]
        found[ground] = {of.__name__: len({str(of(drawing)) for drawing in opened}) for of in HASHES}, issues(folder)
        print(f"{ground}: different hashes of {DRAWINGS}: {found[ground][0]}")
        print(f"  cleanvision: {found[ground][1]}")
    assert len({drawing.tobytes() for drawing in drawings()}) == DRAWINGS
    assert set(found["transparent"][0].values()) == {1} and set(found["transparent"][1].values()) == {DRAWINGS}, found
    assert found["white"][0]["phash"] == DRAWINGS and set(found["white"][1].values()) == {0}, found
PY
cd "$work" && OMP_NUM_THREADS=1 MPLBACKEND=agg venv/bin/python -W ignore hashes.py "$work" >out.txt 2>errors.txt || { cat out.txt errors.txt; exit 1; }
grep "^imagehash\|^transparent\|^white\|^  cleanvision" out.txt
