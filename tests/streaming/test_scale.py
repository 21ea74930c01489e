"""What a large data set costs: nothing that grows with it. Its shards are sparse files: sizes without the disk."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.order import rank_slice
from diffusion_art.shards.reader import ShardInfo, ShardSet
from diffusion_art.shards.tables import INDEX_ROW
from diffusion_art.streaming.client.readers import ReadRequest
from diffusion_art.streaming.client.shard_reader import ShardReader

EACH, ROOM, IMAGE = 10_000, 8192, 5000  # samples of a shard; bytes for each; bytes of its picture, all zero


def write_sparse(folder: Path, samples: int) -> Path:
    """`samples` pictures of zeros with key n + 1 for sample n; only the index takes disk."""
    folder.mkdir()
    sizes = [min(EACH, samples - first) for first in range(0, samples, EACH)]
    infos = [ShardInfo(f"train-{i:06d}.tar", size, ROOM * size, f"{i:064x}") for i, size in enumerate(sizes)]
    for info in infos:
        with (folder / info.file).open("wb") as file:
            file.truncate(info.bytes)
    numbers = np.arange(samples)
    rows = np.zeros(samples, INDEX_ROW)
    rows["key"], rows["shard"] = numbers + 1, numbers // EACH
    rows["image_offset"] = rows["caption_offset"] = ROOM * (numbers % EACH)
    rows["image_length"] = IMAGE
    np.save(folder / "index-train.npy", rows)
    size = (folder / "index-train.npy").stat().st_size
    entry = {"file": "index-train.npy", "samples": samples, "bytes": size, "sha256": "0" * 64}
    split = {"samples": samples, "index": entry, "shards": [vars(info) for info in infos]}
    manifest = {"format": "diffusion-art-shards", "version": 1, "name": folder.name, "image_size_px": 128}
    manifest |= {"caption_template": None, "builder_version": "0", "extra": {}, "splits": {"train": split}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("components", [1, 2])
def test_resuming_far_out_gives_the_same_batches_to_any_number_of_ranks(tmp_path: Path, components: int):
    sizes = (1_300_000, 70_000)[:components]
    spec = [{"path": write_sparse(tmp_path / str(n), samples), "weight": n + 1} for n, samples in enumerate(sizes)]
    reader, first = ShardReader(spec), 1_000_000 // 64

    def keys(rank: int, world: int) -> list[list[str]]:
        requests = [ReadRequest("train", 0, *rank_slice(k, 64, rank, world)) for k in range(first, first + 3)]
        return [[sample.key for sample in samples] for samples in reader.read(requests)]

    whole = keys(0, 1)
    assert [len(batch) for batch in whole] == [64] * 3
    for world in (2, 4, 8):
        shares = [keys(rank, world) for rank in range(world)]
        assert [[key for share in batch for key in share] for batch in zip(*shares)] == whole
    shards = open_shards(spec)
    places = shards.order("train", 0, 0)(np.arange(64 * first, 64 * first + 192))
    keys_of = np.concatenate([part.keys("train") for part in getattr(shards, "components", [shards])])
    assert [int(key, 16) for batch in whole for key in batch] == keys_of[places].tolist()


@pytest.mark.slow
def test_an_epoch_of_wikiarts_size_adds_no_memory_of_its_own(tmp_path: Path):
    """What is mapped belongs to the system, which takes it back when others need it; what a server itself holds
    must not grow with what it has served.
    """
    program = """
import sys
from diffusion_art.streaming.answer import frames, samples_at
from diffusion_art.shards.reader import ShardSet
from diffusion_art.streaming.wire import Read

def own_mib():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

shards = ShardSet.open(sys.argv[1])
total, sent, before, most = shards.splits["train"], 0, own_mib(), 0.0
for start in range(0, total, 256):
    read = Read(0, "train", 0, 0, start, min(start + 256, total))
    sent += sum(len(b"".join(frame)) for frame in frames(shards, read, samples_at(shards, read)))
    most = max(most, own_mib())
print(sent, most - before)
"""
    folder = write_sparse(tmp_path / "wikiart", 103_250)
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    sent, mib = map(float, done.stdout.split())
    assert sent > 103_250 * IMAGE
    assert mib < 48
    assert ShardSet.open(folder).splits == {"train": 103_250}
