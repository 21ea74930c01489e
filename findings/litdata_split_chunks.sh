#!/usr/bin/env bash
# litdata 0.2.76, torch 2.13.0: `train_test_split(art, splits=[0.9, 0.1])` holds pictures out, and `shuffle=True`, its default, is said to shuffle the data before
# splitting. One would guess that a tenth of the pictures is drawn. Whole chunks are put in another order, and the last ones are held out as they lie there. A chunk
# holds 64 MB, which is a thousand pictures or so: a collection that is one chunk is not shuffled at all, and its last tenth is held out with `shuffle=True`
# as with False. Collections are mostly written in the order of their folders, by painter or style. So the validation loss is that of styles which
# were never trained on, or, with chunks of a style each, of one style alone, and training lacks them. Nothing is said.
# Shuffle before the chunks are written.
# Seen: held out of 1,000 pictures of 10 styles in order: one chunk, 100 of style 9, shuffled or not; 10 chunks, 100 of style 1; drawn one by one, of all 10.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 litdata==0.2.76 numpy
cat >"$work/split.py" <<'PY'
import random
import sys
from collections import Counter
from importlib.metadata import version

from litdata import StreamingDataset, train_test_split
from litdata.streaming.cache import Cache

PICTURES, STYLES = 1_000, 10


def stored(folder, per_chunk):
    """A collection in the order of its styles: each picture is its number, and 100 in a row are of one style."""
    path = f"{folder}/{per_chunk}"
    writer = Cache(input_dir=path, chunk_size=per_chunk)
    for number in range(PICTURES):
        writer[number] = number
    writer.done()
    writer.merge()
    return StreamingDataset(path)


def styles(numbers):
    return dict(sorted(Counter(number * STYLES // PICTURES for number in numbers).items()))


print("litdata", version("litdata"))
for per_chunk in (1_000, 100):
    for shuffle in (False, True):
        art = stored(sys.argv[1], per_chunk) if not shuffle else StreamingDataset(f"{sys.argv[1]}/{per_chunk}")
        training, held_out = train_test_split(art, splits=[0.9, 0.1], shuffle=shuffle)
        numbers = [int(held_out[i]) for i in range(len(held_out))]
        print(f"chunks of {per_chunk}, shuffle={shuffle}: held out, of each style: {styles(numbers)}; trained on: {len(training)}")
        assert len(training) == 900 and len(numbers) == 100, (len(training), len(numbers))
        assert numbers == list(range(numbers[0], numbers[0] + 100)), numbers
        assert per_chunk == 100 or numbers[0] == 900, numbers
drawn = styles(random.Random(0).sample(range(PICTURES), 100))
print("drawn one by one:", drawn)
assert len(drawn) == STYLES
PY
cd "$work" && OMP_NUM_THREADS=1 venv/bin/python -W ignore split.py "$work" 2>errors.txt || { cat errors.txt; exit 1; }
