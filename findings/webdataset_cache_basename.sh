#!/usr/bin/env bash
# webdataset 1.0.2: `WebDataset(urls, cache_dir=...)` keeps copies of shards that lie at addresses, so that later epochs do not load them
# again. One would guess that a copy belongs to its address. It belongs to the last part of it: each collection numbers its shards from
# 00000.tar, and of two collections that are trained on together the second one's shards are never loaded, since files of these names are
# there. The first one's pictures are read twice, with their captions, and nothing is said. So it is with two trainings that share a cache
# folder, on another day too. `url_to_name`, an argument of the class that should name the copies, changes nothing. Give each collection a
# cache folder and a `WebDataset` of its own.
# Seen: without a cache monet 3, renoir 3; with one monet 6, renoir 0; with `url_to_name` the same.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check webdataset==1.0.2 numpy
cd "$work"
venv/bin/python - <<'PY'
import http.server
import threading
from collections import Counter
from pathlib import Path

import webdataset as wds


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


for painter in ("monet", "renoir"):
    Path(painter).mkdir()
    with wds.TarWriter(f"{painter}/00000.tar") as shard:
        for number in range(3):
            shard.write({"__key__": f"{number:04}", "txt": painter})

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
urls = [f"http://127.0.0.1:{server.server_port}/{painter}/00000.tar" for painter in ("monet", "renoir")]


def captions(**asked):
    return dict(Counter(sample["txt"].decode() for sample in wds.WebDataset(urls, shardshuffle=False, **asked)))


def whole(url):
    return url.replace("/", "_").replace(":", "_")


for folder in ("copies", "named"):
    Path(folder).mkdir()

both, first_only = {"monet": 3, "renoir": 3}, {"monet": 6}
for said, found, wanted in (
    ("without a cache:", captions(), both),
    ("cache_dir:", captions(cache_dir="copies"), first_only),
    ("cache_dir and url_to_name:", captions(cache_dir="named", url_to_name=whole), first_only),
):
    print(said, found)
    assert found == wanted, (said, found, wanted)
print("copies:", sorted(path.name for path in Path("copies").iterdir()))
server.shutdown()
PY
