#!/usr/bin/env bash
# img2dataset 1.47.0, opencv-python-headless 4.14.0.94: `download` reads the pictures that addresses lead to, and stores each as a JPEG beside its caption. One would
# guess that a PNG with 16 bits per colour, which museums and scanners give, is stored with the upper 8. Its values are stored as they are and cut off at 255 of
# 65,535: all that is not nearly black turns white, with an alpha channel, without one, and in grey. What is stored is a white page with the caption of a painting, and
# its status is "success". Nothing is said. Leave such pictures out, or keep what was downloaded by `disable_all_reencoding=True` and convert it yourself.
# A JPEG that is stored on its side with a note that turns it, as cameras do, lies on its side for good: it is stored as it lies there, without the note.
# Seen: one picture as PNG with 8 bits has a mean of 130 once it is stored, and with 16 bits of 253, 94 % of it white, in grey too; all 5 are a success; one of
# 64x96 whose note turns it is stored as 96x64, and its note is gone.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check img2dataset==1.47.0 opencv-python-headless==4.14.0.94 \
  pillow==13.0.0 numpy
cat >"$work/sixteen.py" <<'PY'
import functools
import http.server
import json
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from img2dataset import download
from PIL import Image

ORIENTATION = 0x0112


def pictures(folder):
    """One picture with 8 and with 16 bits, and lying on its side."""
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    art = np.asarray(Image.fromarray(colours).resize((96, 64), Image.Resampling.BICUBIC))
    wide = art[..., ::-1].astype(np.uint16) * 257  # 255 becomes 65,535
    Image.fromarray(art).save(folder / "eight.png")
    cv2.imwrite(str(folder / "sixteen.png"), wide)
    cv2.imwrite(str(folder / "sixteen_alpha.png"), np.dstack([wide, np.full((64, 96), 65_535, np.uint16)]))
    cv2.imwrite(str(folder / "sixteen_grey.png"), wide[..., 0])
    note = Image.Exif()
    note[ORIENTATION] = 6
    Image.fromarray(art).save(folder / "turned.jpg", exif=note, quality=95)


def main(folder):
    pictures(folder / "source")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder / "source")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = sorted(path.name for path in (folder / "source").iterdir())
    lines = [f"http://127.0.0.1:{server.server_port}/{name},{name}" for name in names]
    (folder / "list.csv").write_text("\n".join(["url,caption", *lines]))
    listed = {"url_list": str(folder / "list.csv"), "input_format": "csv", "url_col": "url", "caption_col": "caption"}
    stored = {"output_folder": str(folder / "stored"), "output_format": "files", "resize_mode": "no"}
    download(**listed, **stored, processes_count=1, thread_count=1, enable_wandb=False)
    server.shutdown()

    print(f"img2dataset {version('img2dataset')}, opencv {cv2.__version__}")
    means, successes = {}, 0
    for text in sorted((folder / "stored").rglob("*.txt")):
        name, image = text.read_text(), Image.open(text.with_suffix(".jpg"))
        values = np.asarray(image)
        means[name] = values.mean()
        successes += json.loads(text.with_suffix(".json").read_text())["status"] == "success"
        print(f"{name}: {image.width}x{image.height}, mean {values.mean():.0f}, {(values == 255).mean():.0%} white, note: {image.getexif().get(ORIENTATION)}")
        if name == "turned.jpg":
            assert image.size == (96, 64) and ORIENTATION not in image.getexif(), image.size
    print("successes:", successes)
    assert successes == len(names) == len(means), (successes, names)
    assert 120 < means["eight.png"] < 140, means
    assert all(means[name] > 250 for name in names if name.startswith("sixteen")), means


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]))
PY
cd "$work" && OMP_NUM_THREADS=1 venv/bin/python -W ignore sixteen.py "$work" >out.txt 2>errors.txt || { cat out.txt errors.txt; exit 1; }
grep -v "it/s\|^worker\|^total\|Waiting\|Starting\|Sharding\|File sharded\|Downloading" out.txt
