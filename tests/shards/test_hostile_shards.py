"""Shard folders of an enemy: nothing outside is read, nothing runs, and each fault is one sentence."""

import io
import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.pixels import BadPicture, decode
from diffusion_art.shards.reader import ShardSet, ShardWriter, write_manifest
from diffusion_art.streaming.client.readers import ReadRequest
from diffusion_art.streaming.client.shard_reader import ShardReader
from tests.shards.toy import is_whole, write_toy
from tests.sources.hostile import Bomb, jpeg_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy(tmp_path / "shards", train=40, val=3)
    return tmp_path / "shards"


def test_a_shard_that_is_a_link_out_of_the_folder_is_not_read(folder: Path, tmp_path: Path):
    tar = folder / "train-000000.tar"
    secret = tmp_path / "secret"
    tar.rename(secret)
    for target in (secret, Path("..") / "secret"):
        tar.symlink_to(target)
        with pytest.raises(UserError, match=r"train-000000\.tar is a link to .*secret.*outside.*cp -rL"):
            ShardSet.open(folder)
        tar.unlink()
    (folder / "inside").write_bytes(secret.read_bytes())
    tar.symlink_to("inside")
    assert is_whole(ShardSet.open(folder))  # a link within the folder leads nowhere else
    (tmp_path / "elsewhere").symlink_to(folder)
    assert is_whole(ShardSet.open(tmp_path / "elsewhere"))  # and where the folder lies is its owner's choice


@pytest.mark.parametrize(
    "replace",
    [
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.mkdir(),
        os.mkfifo,
    ],
    ids=["a link to itself", "a link to nothing", "a folder", "a pipe"],
)
@pytest.mark.parametrize("file", ["train-000001.tar", "index-train.npy"])
def test_what_is_no_file_is_refused_and_waited_for_by_nobody(folder: Path, file: str, replace: Callable):
    (folder / file).unlink()
    replace(folder / file)
    with pytest.raises(UserError, match=rf"{file} does not match its manifest\.json"):
        ShardSet.open(folder)


def test_a_manifest_that_is_a_pipe_is_no_manifest(folder: Path):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        ShardSet.open(folder)


def test_an_index_is_never_unpickled(folder: Path, tmp_path: Path):
    index, manifest = folder / "index-train.npy", json.loads((folder / "manifest.json").read_text())
    bombs = np.array([Bomb(tmp_path / "canary")] * 40, dtype=object)
    archive = io.BytesIO()
    np.savez(archive, bombs=bombs)
    for write in (
        lambda: np.save(index, bombs, allow_pickle=True),
        lambda: index.write_bytes(pickle.dumps(Bomb(tmp_path / "canary"))),
        lambda: index.write_bytes(archive.getvalue()),
    ):
        write()
        manifest["splits"]["train"]["index"]["bytes"] = index.stat().st_size
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match=r"index-train\.npy"):
            ShardSet.open(folder)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shard", 2**32 - 1),
        ("image_offset", 2**64 - 1),
        ("image_offset", 2**40),
        ("caption_offset", 2**63),
        ("image_length", 2**32 - 1),
        ("caption_length", 2**32 - 1),
    ],
)
def test_an_index_that_points_elsewhere_makes_unreadable_samples(folder: Path, field: str, value: int):
    index = np.lib.format.open_memmap(folder / "index-train.npy", mode="r+")
    index[5][field] = value  # neither the first nor the last row of its shard, which opening looks at
    index.flush()
    shards = ShardSet.open(folder)
    _, captions, images = shards.views("train", np.arange(40))
    assert [i for i, image in enumerate(images) if image is None] == [5]
    assert captions[5] is None
    shards.prefetch("train", np.arange(40))
    with pytest.raises(OSError, match="index"):
        shards.read("train", 5)
    samples = next(ShardReader(folder).read([ReadRequest("train", None, 0, 40)]))
    assert [i for i, sample in enumerate(samples) if not sample.image] == [5]


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3},
        {"name": None},
        {"image_size_px": "32"},
        {"caption_template": ["x"]},
        {"extra": []},
        {"splits": []},
        {"splits": {"train": {"samples": 40, "index": 3, "shards": []}}},
        {"splits": {"train": {"samples": -1, "index": {}, "shards": [{}]}}},
        {"builder_version": {}},
    ],
)
def test_a_manifest_of_wrong_kinds_is_refused(folder: Path, change: dict):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=r"manifest\.json is incomplete or has a wrong entry"):
        ShardSet.open(folder)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "9" * 10_000, "\ud800".encode("utf-8", "replace")])
def test_a_manifest_that_no_parser_likes_is_refused(folder: Path, text: str | bytes):
    (folder / "manifest.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError, match=r"manifest\.json"):
        ShardSet.open(folder)


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "a\\b", "", ".", "..", "a\0b"])
def test_a_manifest_names_plain_files_only(folder: Path, file: str):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["splits"]["train"]["shards"][0]["file"] = file
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="not a plain file name"):
        ShardSet.open(folder)


def test_any_damage_of_manifest_or_index_is_one_sentence_or_samples(folder: Path):
    """A few hundred folders with some bytes changed: opened, or a UserError; nothing else, and no warning."""
    rng, outcomes = random.Random(0), {"opened": 0, "refused": 0}
    for file, alphabet in (
        ("manifest.json", b'0129{}[],:"tfnul-. e\\/'),
        ("index-train.npy", b"()[]{}',:<>|OVu-\n\xff"),
    ):
        whole = (folder / file).read_bytes()
        for _ in range(250):
            damaged = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(len(damaged) if rng.random() < 0.5 else 128)] = rng.choice(alphabet)
            (folder / file).write_bytes(damaged)
            try:
                shards = ShardSet.open(folder)
            except UserError:
                outcomes["refused"] += 1
            else:
                for split, samples in shards.splits.items():
                    shards.views(split, np.arange(min(samples, 100)))
                    shards.prefetch(split, np.arange(min(samples, 100)))
                outcomes["opened"] += 1
        (folder / file).write_bytes(whole)
    assert outcomes["opened"] > 10
    assert outcomes["refused"] > 100


def test_a_picture_that_promises_200_megapixels_is_refused_unopened(tmp_path: Path):
    bomb = jpeg_of(20_000, 10_000)
    with pytest.raises(BadPicture, match="200,000,000 pixels"):
        decode(bomb)
    with ShardWriter(tmp_path / "x", split="train") as writer:
        writer.add("0" * 16, bomb, "a bomb", {})
        shards = {"train": writer.close()}
    write_manifest(tmp_path / "x", name="x", image_size_px=16, caption_template=None, shards=shards)
    sample = next(ShardReader(tmp_path / "x").read([ReadRequest("train", 0, 0, 1)]))[0]
    with pytest.raises(BadPicture, match="200,000,000 pixels"):
        decode(sample.image)


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>", b"GIF89a", b""])
def test_bytes_that_a_program_would_have_to_run_are_no_picture(content: bytes):
    with pytest.raises(BadPicture):
        decode(content)
