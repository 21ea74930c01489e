import json
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.reader import Sample, ShardInfo, ShardSet, ShardWriter, write_manifest
from diffusion_art.shards.tables import INDEX_ROW, index_shard
from tests.shards.toy import is_whole, toy_caption, toy_image, toy_key, write_toy


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rewrite_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_written_is_read(toy: Path):
    shards = ShardSet.open(toy)
    assert (shards.name, shards.splits, shards.image_size_px) == ("toy-0", {"train": 100, "val": 10}, 32)
    assert shards.manifest.extra == {"seed": 0}
    for split, samples in shards.splits.items():
        for i in range(samples):
            assert shards.read(split, i) == Sample(toy_key(split, i), toy_image(i), toy_caption(i))
            assert shards.key(split, i) == toy_key(split, i)
            assert shards.metadata(split, i) == {"title": f"Title {i}", "date": None}
    assert is_whole(shards)
    with pytest.raises(IndexError, match=r"0\.\.99, not 100"):
        shards.read("train", 100)
    with pytest.raises(IndexError):
        shards.read("train", -1)


def test_the_same_samples_give_the_same_bytes(toy: Path, tmp_path: Path):
    assert write_toy(tmp_path).digest == ShardSet.open(toy).digest
    assert files(tmp_path) == files(toy)
    assert write_toy(tmp_path, seed=1).digest != ShardSet.open(toy).digest


def test_the_digest_is_of_the_samples_and_nothing_else(toy: Path):
    manifest = ShardSet.open(toy).manifest
    assert replace(manifest, name="other", image_size_px=1, extra={}).digest == manifest.digest
    swapped = {**manifest.shards, "train": manifest.shards["train"][::-1]}
    assert replace(manifest, shards=swapped).digest != manifest.digest


def test_shards_are_plain_tars(toy: Path):
    with tarfile.open(toy / "train-000001.tar") as tar:
        members = tar.getmembers()
        assert [member.name for member in members[:3]] == [
            f"{toy_key('train', 32)}.{s}" for s in ("jpg", "txt", "json")
        ]
        assert len(members) == 3 * 32
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.type) for m in members} == {(0, 0, 0, 0o644, "", b"0")}
        content = tar.extractfile(members[0])
        assert content is not None
        assert content.read() == toy_image(32)


def test_webdataset_reads_them(toy: Path):
    from webdataset.tariterators import group_by_keys, tar_file_expander

    samples = []
    for path in sorted(toy.glob("train-*.tar")):
        with path.open("rb") as file:
            samples += group_by_keys(tar_file_expander([{"url": path.name, "stream": file}]))
    assert [sample["__key__"] for sample in samples] == [toy_key("train", i) for i in range(100)]
    assert samples[99]["jpg"] == toy_image(99)
    assert samples[99]["txt"].decode() == toy_caption(99)


def test_a_new_shard_begins_at_either_limit(tmp_path: Path):
    with ShardWriter(tmp_path, split="train", max_bytes=12_000, max_samples=4) as writer:
        for i, size in enumerate([10, 10, 10, 10, 10, 3000, 3000, 20_000, 10]):
            writer.add(f"{i:016x}", bytes(size), "", {})
        shards = writer.close()
    assert [shard.samples for shard in shards] == [
        4,
        2,
        1,
        1,
        1,
    ]  # the fifth sample is the first of the second
    assert [shard.file for shard in shards] == [f"train-{i:06d}.tar" for i in range(5)]
    assert all(shard.bytes <= 12_000 or shard.samples == 1 for shard in shards)
    assert all((tmp_path / shard.file).stat().st_size == shard.bytes for shard in shards)


def test_a_build_that_breaks_off_leaves_no_data_set(tmp_path: Path):
    write_toy(tmp_path)

    def build() -> None:
        with ShardWriter(tmp_path, split="train", max_samples=2) as writer:
            for i in range(3):
                writer.add(f"{i:016x}", b"x", "", {})
            raise InterruptedError

    with pytest.raises(InterruptedError):
        build()
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(UserError, match=r"has no manifest\.json.*diffusion_art\.prepare"):
        ShardSet.open(tmp_path)


def test_the_writer_refuses_what_a_shard_cannot_hold(tmp_path: Path):
    with pytest.raises(ValueError, match="split"):
        ShardWriter(tmp_path, split="../train")
    writer = ShardWriter(tmp_path, split="train")
    for key in ("", "abc", "0" * 15 + "G", "A" * 16, "0" * 17):
        with pytest.raises(ValueError, match="hex"):
            writer.add(key, b"", "", {})
    with pytest.raises(ValueError, match="JSON"):
        writer.add("0" * 16, b"", "", {"x": float("nan")})
    assert writer.close() == []


def test_captions_that_are_no_text_are_stored_all_the_same(tmp_path: Path):
    with ShardWriter(tmp_path, split="train") as writer:
        writer.add("0" * 16, b"x", "a lone \ud800 surrogate", {"title": "\ud800"})
        shards = writer.close()
    write_manifest(tmp_path, name="x", image_size_px=1, caption_template=None, shards={"train": shards})
    assert ShardSet.open(tmp_path).read("train", 0).caption == "a lone ? surrogate"
    assert ShardSet.open(tmp_path).metadata("train", 0) == {"title": "?"}


def test_an_empty_split_is_a_split(tmp_path: Path):
    write_toy(tmp_path, train=3, val=0)
    shards = ShardSet.open(tmp_path)
    assert shards.splits == {"train": 3, "val": 0}
    assert is_whole(shards)


def test_two_samples_with_one_key_are_refused_also_across_splits(tmp_path: Path):
    shards = {}
    for split in ("train", "val"):
        with ShardWriter(tmp_path, split=split) as writer:
            writer.add("00000000000000ff", b"x", "", {})
            shards[split] = writer.close()
    with pytest.raises(UserError, match="00000000000000ff"):
        write_manifest(tmp_path, name="x", image_size_px=1, caption_template=None, shards=shards)
    assert not (tmp_path / "manifest.json").exists()


def cut(path: Path, by: int) -> None:
    os.truncate(path, path.stat().st_size - by)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: (d / "manifest.json").unlink(), r"has no manifest\.json"),
        (lambda d: cut(d / "manifest.json", 10), "not valid JSON"),
        (lambda d: (d / "manifest.json").write_text("[]"), "format None"),
        (lambda d: rewrite_manifest(d, version=9), r"version 9.*reads .* version 1"),
        (lambda d: rewrite_manifest(d, splits={"train": {}}), "incomplete"),
        (lambda d: rewrite_manifest(d, name_of_no_use=1, splits=3), "incomplete"),
        (
            lambda d: (d / "train-000001.tar").unlink(),
            r"train-000001\.tar.*no file.*the manifest says \d+ bytes",
        ),
        (
            lambda d: cut(d / "train-000001.tar", 512),
            r"train-000001\.tar.*found \d+ bytes, the manifest says \d+ bytes",
        ),
        (lambda d: (d / "index-val.npy").unlink(), r"index-val\.npy.*no file"),
        (lambda d: cut(d / "index-train.npy", 48), r"index-train\.npy.*found \d+ bytes"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file_both_values_and_the_mend(tmp_path: Path, damage, says: str):
    write_toy(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=says) as caught:
        ShardSet.open(tmp_path)
    assert "python -m diffusion_art.prepare" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"no shard folder .*nowhere.*diffusion_art\.prepare"):
        ShardSet.open(tmp_path / "nowhere")


def test_a_manifest_may_not_name_files_elsewhere(tmp_path: Path):
    write_toy(tmp_path, val=0)
    text = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace("train-000000.tar", "../train-000000.tar"))
    with pytest.raises(UserError, match="not a plain file name"):
        ShardSet.open(tmp_path)


def test_an_index_of_another_build_is_refused(tmp_path: Path):
    write_toy(tmp_path)
    path = tmp_path / "index-train.npy"
    rows = np.load(path)
    for field, value in {"shard": 3, "metadata_offset": 10**9}.items():
        wrong = rows.copy()
        wrong[31][field] = value  # the last row of the first shard
        np.save(path, wrong)
        with pytest.raises(UserError, match=r"index-train\.npy.*rows that do not fit train-000000\.tar"):
            ShardSet.open(tmp_path)
    np.save(path, np.zeros(len(rows), np.dtype("V48")))
    with pytest.raises(UserError, match=r"index-train\.npy"):
        ShardSet.open(tmp_path)


@pytest.mark.parametrize("by", [1, 512, 1024, 1500, 20_000])
def test_a_truncated_tar_cannot_be_indexed(tmp_path: Path, by: int):
    write_toy(tmp_path)
    cut(tmp_path / "train-000000.tar", by)
    with pytest.raises(UserError, match=r"train-000000\.tar is truncated.*byte \d+ of \d+"):
        index_shard(tmp_path / "train-000000.tar")


def test_a_tar_of_others_cannot_be_indexed(tmp_path: Path):
    (tmp_path / "a.txt").write_text("hello")
    with tarfile.open(tmp_path / "train-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(tmp_path / "a.txt", arcname="../a.txt")
    with pytest.raises(UserError, match=r"'\.\./a\.txt' where"):
        index_shard(tmp_path / "train-000000.tar")


def test_shards_that_are_not_what_was_written_get_no_manifest(tmp_path: Path):
    manifest = write_toy(tmp_path)
    wrong = [replace(info, samples=info.samples + 1) for info in manifest.shards["train"]]
    with pytest.raises(UserError, match=r"train-000000\.tar holds 32 samples .* not 33"):
        write_manifest(tmp_path, name="x", image_size_px=1, caption_template=None, shards={"train": wrong})


def test_a_shard_cut_while_open_makes_unreadable_samples_and_kills_nobody(tmp_path: Path):
    write_toy(tmp_path)
    shards = ShardSet.open(tmp_path)
    shards.read("train", 0)  # maps the first shard
    os.truncate(tmp_path / "train-000000.tar", 4096)
    os.truncate(tmp_path / "train-000001.tar", 0)
    (tmp_path / "train-000002.tar").unlink()
    keys, captions, images = shards.views("train", np.arange(100))
    readable = [image is not None for image in images]
    assert readable[:2] == [True, False]
    assert not any(readable[2:96])
    assert all(readable[96:])
    assert [caption is not None for caption in captions] == readable
    assert [f"{key:016x}" for key in keys.tolist()] == [toy_key("train", i) for i in range(100)]
    shards.prefetch("train", np.arange(100))
    for i in (31, 40, 70):
        with pytest.raises(OSError, match=r"train-00000\d\.tar"):
            shards.read("train", i)


def test_threads_may_read_at_once_with_fewer_maps_than_shards(toy: Path):
    shards = ShardSet.open(toy)
    shards._store._max_mapped = 1

    def read(seed: int) -> bool:
        numbers = np.random.default_rng(seed).integers(0, 100, 300)
        _, _, images = shards.views("train", numbers)
        return [bytes(image) for image in images if image] == [toy_image(int(i)) for i in numbers]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(8)))
    assert len(shards._store._mapped) == 1


@pytest.mark.slow
def test_a_hundred_million_samples_open_in_seconds_and_little_memory(tmp_path: Path):
    """Ten thousand shards of ten thousand samples, as sparse files: all that opening looks at is there."""
    count, each, size = 10_000, 10_000, 2**28
    infos = [ShardInfo(f"train-{i:06d}.tar", each, size, "0" * 64) for i in range(count)]
    for info in infos:
        with (tmp_path / info.file).open("wb") as file:
            file.truncate(size)
    index = np.lib.format.open_memmap(tmp_path / "index-train.npy", mode="w+", dtype=INDEX_ROW, shape=(count * each,))
    index["shard"][::each] = index["shard"][each - 1 :: each] = np.arange(count)
    index.flush()
    path = tmp_path / "index-train.npy"
    entry = {"file": path.name, "samples": count * each, "bytes": path.stat().st_size, "sha256": "0" * 64}
    split = {"samples": count * each, "index": entry, "shards": [vars(info) for info in infos]}
    manifest = {
        "format": "diffusion-art-shards",
        "version": 1,
        "name": "large",
        "image_size_px": 1,
        "extra": {},
    }
    manifest |= {"caption_template": None, "builder_version": "0", "splits": {"train": split}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    program = (
        "import sys, time; from diffusion_art.shards.reader import ShardSet\n"
        "began = time.monotonic(); shards = ShardSet.open(sys.argv[1])\n"
        "assert shards.splits == {'train': 10**8}; shards.key('train', 12345678)\n"
        "peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]  # ru_maxrss begins with the parent's\n"
        "print(time.monotonic() - began, int(peak) / 2**20)"
    )
    output = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, output.stdout.split())
    assert seconds < 5
    assert gigabytes < 2
