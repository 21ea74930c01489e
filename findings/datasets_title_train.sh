#!/usr/bin/env bash
# datasets 5.2.0, pillow 13.0.0: `load_dataset("imagefolder", data_dir=...)` reads a folder of pictures. One would guess that it reads all of
# them. It looks for the words train, test, validation and the like between the separators of a file's name, to find splits. If one
# file has such a word, the files that have none are left out, with no warning. Painters painted trains: of five pictures by
# Monet, one of them "Train in the Snow", a data set of one row is left. Without that picture there are four rows. The first call of
# training succeeds, on one picture. `data_files` with a pattern that covers all files reads all of them, under the split `train`.
# Seen: {'train': 1} of 5 files; {'train': 4} without the train; {'train': 5} with data_files="**".
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check datasets==5.2.0 pillow==13.0.0 numpy
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
"$work/venv/bin/python" - "$work" <<'PY'
import sys
from pathlib import Path

from datasets import load_dataset
from PIL import Image

titles = ["haystacks", "impression_sunrise", "poplars", "water_lilies", "train_in_the_snow"]


def rows(folder, **asked):
    return {name: len(split) for name, split in load_dataset("imagefolder", data_dir=str(folder), **asked).items()}


def folder_of(name, titles):
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    for title in titles:
        Image.new("RGB", (8, 8)).save(folder / f"{title}.jpg")
    return folder


five, four = folder_of("five", titles), folder_of("four", titles[:-1])
for said, found, wanted in (
    ("five pictures:", rows(five), {"train": 1}),
    ("without the train:", rows(four), {"train": 4}),
    ('five, data_files="**":', rows(five, data_files="**"), {"train": 5}),
):
    print(said, found)
    assert found == wanted, (found, wanted)
PY
