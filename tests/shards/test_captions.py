"""Several captions of a picture: one at each visit, the same over every road, and by a template of the run's own."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import Mixture, open_shards
from diffusion_art.shards.order import draws
from diffusion_art.shards.places import Component
from diffusion_art.shards.reader import Manifest, ShardSet, ShardWriter, write_manifest
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Settings
from tests.streaming.eir.serving import eir, serving
from tests.streaming.pictures import picture, picture_key

SEED = 7


def texts(i: int) -> list[str]:
    """Sample `i` has one to four captions."""
    return [f"n°{number} of {i} / 浮世絵" for number in range(1 + i % 4)]


def write_told(folder: Path, *, first: int = 0, train: int = 40, val: int = 10) -> Manifest:
    """`train` and then `val` pictures with `texts`, from `first` on."""
    shards, numbers = {}, iter(range(first, first + train + val))
    for split, count in {"train": train, "val": val}.items():
        with ShardWriter(folder, split=split, max_samples=16) as writer:
            for i in (next(numbers) for _ in range(count)):
                more = {"captions": texts(i)} if len(texts(i)) > 1 else {}
                writer.add(picture_key(i), picture(i), texts(i)[0], {"title": f"Title {i}", **more})
            shards[split] = writer.close()
    return write_manifest(folder, name="told", image_size_px=16, caption_template=None, shards=shards)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    write_told(folder)
    return folder


GOLDEN = ["38cc9618ccec42e7", "585cdf911a23e560", "40fa82cba2325ada"]
NUMBERS = {picture_key(i): i for i in range(200)}


def mix(x: int) -> int:
    """SplitMix64's two multiplications, as docs/shards.md tells them."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    return (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64


def chosen(split: str, seed: int, epoch: int, place: int, count: int) -> int:
    """The number of the caption at a place, from the description alone."""
    identity = json.dumps(["diffusion-art-captions-1", seed, epoch, split]).encode()
    key = int.from_bytes(hashlib.shake_256(identity).digest(8), "little")
    return (mix(place ^ key) >> 32) * count >> 32


def test_the_choice_never_changes_and_is_fair():
    assert [f"{int(draw):016x}" for draw in draws("train", 0, 0, np.arange(3))] == GOLDEN
    counts = Counter(chosen("train", 3, epoch, 5, 4) for epoch in range(4000))
    assert sorted(counts) == [0, 1, 2, 3]
    assert all(900 < count < 1100 for count in counts.values())
    several = draws("train", 3, 2, np.array([0, 1, 10**12])).tolist()
    assert [(draw >> 32) * 5 >> 32 for draw in several] == [chosen("train", 3, 2, p, 5) for p in (0, 1, 10**12)]


def test_each_visit_has_one_of_the_captions_the_same_over_every_road(told: Path):
    requests = [ReadRequest("train", SEED, start, start + 20) for start in range(0, 400, 20)]
    direct = [sample for samples in ShardReader(told).read(requests) for sample in samples]
    for position, sample in enumerate(direct):
        i = NUMBERS[sample.key]
        epoch, place = divmod(position, 40)
        assert sample.caption == texts(i)[chosen("train", SEED, epoch, place, len(texts(i)))]
    with ServerProcess(told) as server:
        streamed = [sample for samples in StreamClient(server.url).read(requests) for sample in samples]
    assert [(s.key, s.caption) for s in streamed] == [(s.key, s.caption) for s in direct]
    assert {s.caption for s in direct if NUMBERS[s.key] == 3} == set(texts(3))


def test_validation_always_has_the_first(told: Path):
    (samples,) = ShardReader(told).read([ReadRequest("val", None, 0, 10)])
    assert [sample.caption for sample in samples] == [texts(i)[0] for i in range(40, 50)]


def test_decoded_pictures_and_mixtures_draw_alike(told: Path, tmp_path: Path):
    write_told(tmp_path / "other", first=100)
    spec = [Component(told, 3.0), Component(tmp_path / "other", 1.0)]
    requests = [ReadRequest("train", SEED, 0, 160)]
    (jpegs,) = ShardReader(spec).read(requests)
    (pixels,) = ShardReader(spec, codec="u8", cache=tmp_path / "cache").read(requests)
    assert [(s.key, s.caption) for s in jpegs] == [(s.key, s.caption) for s in pixels]
    for position, sample in enumerate(jpegs):
        i, (epoch, place) = NUMBERS[sample.key], divmod(position, 80)
        assert sample.caption == texts(i)[chosen("train", SEED, epoch, place, len(texts(i)))]
    assert isinstance(open_shards(spec), Mixture)


def test_clients_of_eirs_protocol_get_the_same_choice(told: Path):
    with serving(told, Settings(eir_epochs=2, eir_seed=SEED)) as url, eir(url) as client:
        payload = [sample for _ in range(2) for sample in client.data(40)]
    (expected,) = ShardReader(told).read([ReadRequest("train", SEED, 0, 80)])
    found = [(sample["sample_id"], sample["inputs"]["caption"]) for sample in payload]
    assert found == [(sample.key, sample.caption) for sample in expected]


def test_a_run_draws_by_its_seed_whatever_the_workers(told: Path):
    seen = []
    for workers, url in ((0, "shards"), (2, "auto")):
        data = StreamDataModule(
            shards=told,
            url=url,
            image_size_px=16,
            global_batch_size=20,
            val_samples=10,
            num_workers=workers,
            seed=SEED,
        )
        data.prepare_data()
        data.setup()
        try:
            loader = data.train_dataloader()
            loader.dataset.last_batch = 8
            seen.append([(batch.cursor, batch.keys, batch.captions) for batch in loader])
        finally:
            data.teardown()
    assert seen[0] == seen[1]
    first, second = seen[0][0:2], seen[0][2:4]
    captions = [dict(zip(keys, texts)) for epoch in (first, second) for _, keys, texts in epoch]
    assert captions[0] | captions[1] != captions[2] | captions[3]  # another epoch, another choice


def test_a_folder_without_several_captions_is_as_it_was(tmp_path: Path):
    with ShardWriter(tmp_path, split="train") as writer:
        writer.add(picture_key(0), picture(0), "one", {"captions": ["one"], "title": "captions: [x, y]"})
        shards = {"train": writer.close()}
    manifest = write_manifest(tmp_path, name="x", image_size_px=16, caption_template=None, shards=shards)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index-train.npy", "manifest.json", "train-000000.tar"]
    assert "captions" not in json.loads((tmp_path / "manifest.json").read_text())["splits"]["train"]
    assert not ShardSet.open(tmp_path).tells_several("train")
    assert manifest.captions == {}


def test_the_table_is_what_its_description_says(told: Path):
    data = (told / "captions-train.bin").read_bytes()
    magic, samples, count, size = struct.unpack_from("<8sQQQ", data)
    assert (magic, samples, count) == (b"dart-cap", 40, sum(len(texts(i)) for i in range(40)))
    after = 32 + size + -size % 8
    first = np.frombuffer(data, "<u8", samples + 1, after)
    starts = np.frombuffer(data, "<u8", count + 1, after + 8 * (samples + 1))
    assert after + 8 * (samples + count + 2) == len(data)
    for i in range(40):
        found = [data[32 + starts[j] : 32 + starts[j + 1]].decode() for j in range(first[i], first[i + 1])]
        assert found == texts(i)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"dart-cup" + data[8:],
        lambda data: data[:8] + struct.pack("<Q", 2**61) + data[16:],
        lambda data: data[:16] + struct.pack("<Q", 2**63) + data[24:],
        lambda data: data[:-8] + struct.pack("<Q", 5),
        lambda data: b"",
        lambda data: data[:20],
    ],
)
def test_a_damaged_table_is_refused(told: Path, tmp_path: Path, damage):
    data = damage((told / "captions-val.bin").read_bytes())
    for file in told.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "captions-val.bin").write_bytes(data)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["splits"]["val"]["captions"]["bytes"] = len(data)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"captions-val\.bin does not match its manifest"):
        ShardSet.open(tmp_path)


def test_hostile_offsets_lead_nowhere_outside_the_file(told: Path, tmp_path: Path):
    data = bytearray((told / "captions-train.bin").read_bytes())
    *_, count, size = struct.unpack_from("<8sQQQ", data)
    after = 32 + size + -size % 8
    for i in range(1, 40):
        struct.pack_into("<Q", data, after + 8 * i, 2**64 - i)
    for j in range(1, count):
        struct.pack_into("<Q", data, after + 8 * (41 + j), 2**63 + j)
    for file in told.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "captions-train.bin").write_bytes(data)
    (samples,) = ShardReader(tmp_path).read([ReadRequest("train", SEED, 0, 40)])
    assert {sample.key for sample in samples} == {picture_key(i) for i in range(40)}


# ------------------------------------------------------------------ another template


def test_a_template_of_the_run_is_applied_by_the_server_that_it_starts(told: Path, tmp_path: Path):
    write_told(tmp_path / "other", first=100)
    spec = [Component(told, None, "{title}"), Component(tmp_path / "other", None, "{title}: {caption}")]
    requests = [ReadRequest("train", SEED, 0, 160), ReadRequest("val", None, 0, 20)]
    with ServerProcess(spec, processes=2) as server:
        client = StreamClient(server.url)
        (streamed, val), info = list(client.read(requests)), client.info()
    (direct, _) = ShardReader(spec).read(requests)
    assert [(s.key, s.caption) for s in streamed] == [(s.key, s.caption) for s in direct]
    for position, sample in enumerate(direct):
        i, (epoch, place) = NUMBERS[sample.key], divmod(position, 80)
        text = texts(i)[chosen("train", SEED, epoch, place, len(texts(i)))]
        assert sample.caption == (f"Title {i}" if i < 100 else f"Title {i}: {text}")
    assert val[0].caption == "Title 40"
    assert val[-1].caption == f"Title 149: {texts(149)[0]}"
    bare = open_shards([replace(component, caption_template=None) for component in spec])
    assert (info.digest, info.caption_template) == (bare.digest, None)


def test_a_running_server_has_the_last_word(told: Path):
    with ServerProcess([Component(told, None, "{title}")]) as server:

        def data(template: str | None) -> StreamDataModule:
            return StreamDataModule(
                shards=told,
                url=server.url,
                image_size_px=16,
                global_batch_size=20,
                num_workers=0,
                caption_template=template,
            )

        for template in (None, "{title}"):
            run = data(template)
            run.setup()
            run.teardown()
        with pytest.raises(UserError, match=r"makes its captions by '\{title\}'.*'caption_template=\{artist\}'`"):
            data("{artist}").setup()


def test_samples_whose_metadata_cannot_be_read_keep_their_caption(tmp_path: Path):
    write_told(tmp_path)
    shard = tmp_path / "train-000000.tar"
    row = ShardSet.open(tmp_path).rows("train")[2]
    with shard.open("r+b") as file:
        file.seek(int(row["metadata_offset"]))
        file.write(b"[" * 10)
    shards = ShardSet.open(tmp_path, caption_template="{title}")
    _, captions, _ = shards.views("train", np.arange(4))
    assert [str(caption, "utf-8") for caption in captions] == ["Title 0", "Title 1", texts(2)[0], "Title 3"]
