"""Pictures decoded once: the same pixels, found again, made by one process at a time, and never half."""

import errno
import os
import re
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.errors import UserError
from diffusion_art.files import CACHE_VARIABLE, cache_folder
from diffusion_art.shards import decoded as predecoding
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.decoded import Decoded, Rows, predecode
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.pixels import PAYLOADS, Payload, copy_into, decode
from diffusion_art.shards.places import components_of
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.painter import Painter
from diffusion_art.streaming.client.readers import ReadRequest, StreamClient
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.streaming.server.settings import Settings
from tests.fakes_buckets import bucketed_shards
from tests.shards.toy import write_toy
from tests.streaming.running import running

REQUESTS = [ReadRequest("train", 0, 40 * k, 40 * (k + 1)) for k in range(8)] + [ReadRequest("val", None, 0, 12)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are decoded into while a test runs."""
    folders: list[Path] = []
    decode_all = predecoding._decode

    def watched(shards: ShardSet, rows: dict[str, Rows], folder: Path, workers: int, progress: bool) -> None:
        folders.append(folder)
        decode_all(shards, rows, folder, workers, progress)

    monkeypatch.setattr(predecoding, "_decode", watched)
    return folders


def test_rows_are_the_decoded_pictures(painter_shards: Path, cache: Path):
    shards = ShardSet.open(painter_shards)
    assert shards.codecs == ("jpeg",)
    predecode(shards, cache=cache, workers=3, progress=False)
    assert shards.codecs == ("jpeg", "u8")
    for split, samples in shards.splits.items():
        places = np.random.default_rng(0).permutation(samples)
        keys, captions, images = shards.views(split, places, "u8")
        stored_keys, stored_captions, stored_images = shards.views(split, places)
        assert keys.tolist() == stored_keys.tolist()
        assert captions == stored_captions
        for image, stored in zip(images, stored_images, strict=True):
            assert image == decode(stored).tobytes()
        shards.prefetch(split, places, "u8")


def test_rows_of_several_sizes_are_the_decoded_pictures(tmp_path: Path):
    bucketed_shards(tmp_path / "shards")
    shards = ShardSet.open(tmp_path / "shards")
    predecode(shards, cache=tmp_path / "cache", workers=2, progress=False)
    for split, samples in shards.splits.items():
        places = np.random.default_rng(0).permutation(samples)
        stored = shards.views(split, places)[2]
        for image, picture in zip(shards.views(split, places, "u8")[2], stored, strict=True):
            assert image == decode(picture or b"").tobytes()
        shards.prefetch(split, places, "u8")


@pytest.mark.parametrize("side", [16, 8])
def test_a_run_on_buckets_sees_the_same_pixels(tmp_path: Path, side: int):
    bucketed_shards(tmp_path / "shards")
    served = Settings(decode=True, cache=str(tmp_path / "cache")).open(components_of(tmp_path / "shards"))

    def images(payload: str, url: str) -> list[torch.Tensor]:
        settings: dict = {"image_size_px": side, "global_batch_size": 4, "num_workers": 0, "payload": payload}
        module = StreamDataModule(shards=tmp_path / "shards", url=url, cache=str(tmp_path / "cache"), **settings)
        module.prepare_data()
        module.setup()
        try:
            return [batch.images for batch, _ in zip(module.train_dataloader(), range(12))]
        finally:
            module.teardown()

    with running(served) as url:
        found = [images("jpeg", "shards"), images("u8", "shards"), images("u8", url)]
    assert len({tuple(batch.shape) for batch in found[0]}) > 2
    for stored, near, far in zip(*found, strict=True):
        assert near.shape == stored.shape
        assert torch.equal(near, far)
        if side == 16:
            assert torch.equal(near, stored)
        else:  # a JPEG that is decoded small is a little sharper than the mean of pixels
            assert (near.float() - stored.float()).abs().mean() < 4


def test_they_are_made_once_and_found_by_digest_and_size(painter_shards: Path, tmp_path: Path, made: list[Path]):
    for _ in range(2):
        shards = ShardSet.open(painter_shards)
        predecode(shards, cache=tmp_path, progress=False)
    assert made == [tmp_path / f"{shards.digest}-16px"]
    other = tmp_path / "other"
    build_shards(Painter(count=9, image_size_px=16), other, image_size_px=8, progress=False, workers=1)
    predecode(ShardSet.open(other), cache=tmp_path, progress=False)
    assert len(made) == 2
    assert made[1].name.endswith("-8px")


def test_damaged_files_are_made_again(painter_shards: Path, tmp_path: Path, made: list[Path]):
    predecode(ShardSet.open(painter_shards), cache=tmp_path, progress=False)
    file = made[0] / "train.u8"
    content = file.read_bytes()
    for damage in (lambda: os.truncate(file, 100), file.unlink, (made[0] / "val.bad").unlink):
        damage()
        predecode(ShardSet.open(painter_shards), cache=tmp_path, progress=False)
        assert file.read_bytes() == content
    assert len(made) == 4


def test_of_several_at_once_one_decodes_and_all_are_served(painter_shards: Path, tmp_path: Path, made: list[Path]):
    sets = [ShardSet.open(painter_shards) for _ in range(4)]
    threads = [
        threading.Thread(target=predecode, args=(shards,), kwargs={"cache": tmp_path, "progress": False})
        for shards in sets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert all(shards.codecs == ("jpeg", "u8") for shards in sets)


def test_what_cannot_be_decoded_is_empty_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_toy(tmp_path / "toy")  # random bytes, none of them a picture
    shards = ShardSet.open(tmp_path / "toy")
    predecode(shards, cache=tmp_path, progress=False)
    assert "100 of 100 pictures of split train cannot be read" in caplog.text
    assert shards.views("train", np.arange(100), "u8")[2] == [None] * 100
    (samples,) = ShardReader(tmp_path / "toy", codec="u8", cache=tmp_path).read([ReadRequest("val", None, 0, 3)])
    assert [len(sample.image) for sample in samples] == [0, 0, 0]


def test_a_failure_leaves_nothing_behind(painter_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shards = ShardSet.open(painter_shards)
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", full)
        with pytest.raises(UserError, match=rf"No space left on device.*{CACHE_VARIABLE}=FOLDER"):
            predecode(shards, cache=tmp_path, progress=False)
    assert shards.codecs == ("jpeg",)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    predecode(shards, cache=tmp_path, progress=False)
    assert shards.codecs == ("jpeg", "u8")


def test_too_little_room_is_said_before_anything_is_written(
    painter_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = predecoding.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(predecoding.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=rf"take 0\.0 GB and {re.escape(str(tmp_path))} has 0\.0 GB free"):
        predecode(ShardSet.open(painter_shards), cache=tmp_path, progress=False)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("decoded") == tmp_path / "xdg" / "diffusion-art" / "decoded"
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cache_folder("decoded") == tmp_path / "mine" / "decoded"


def test_a_file_cut_while_it_is_served_gives_no_pictures(painter_shards: Path, tmp_path: Path):
    shards = ShardSet.open(painter_shards)
    predecode(shards, cache=tmp_path, progress=False)
    decoded = shards.forms["u8"]
    assert isinstance(decoded, Decoded)
    os.truncate(decoded.folder / "train.u8", 5000)
    assert shards.views("train", np.arange(3), "u8")[2] == [None] * 3


def test_a_mixture_has_the_codec_when_all_its_parts_do(painter_shards: Path, tmp_path: Path):
    other = tmp_path / "other"
    build_shards(Painter(count=30, image_size_px=16, seed=5), other, image_size_px=16, progress=False, workers=1)
    shards = open_shards([{"path": painter_shards, "weight": 0.7}, {"path": other, "weight": 0.3}])
    assert shards.codecs == ("jpeg",)
    predecode(shards, cache=tmp_path, progress=False)
    assert shards.codecs == ("jpeg", "u8")
    places = np.arange(shards.splits["train"])
    _, _, images = shards.views("train", places, "u8")
    _, _, stored = shards.views("train", places)
    for image, data in zip(images, stored, strict=True):
        assert image == decode(data).tobytes()


@pytest.fixture(scope="module")
def server(painter_shards: Path, cache: Path):
    with ServerProcess(painter_shards, settings=Settings(decode=True, cache=str(cache))) as process:
        yield process


@pytest.mark.parametrize("checksum", [True, False])
def test_the_streamed_pixels_are_those_of_the_shards(
    painter_shards: Path, server: ServerProcess, cache: Path, checksum: bool
):
    client = StreamClient(server.url, codec="u8", checksum=checksum)
    assert client.info().codecs == ("jpeg", "u8")
    streamed = list(client.read(REQUESTS, window=3))
    assert streamed == list(ShardReader(painter_shards, codec="u8", cache=cache).read(REQUESTS))
    stored = list(StreamClient(server.url).read(REQUESTS))
    for samples, others in zip(streamed, stored, strict=True):
        for sample, other in zip(samples, others, strict=True):
            assert (sample.key, sample.caption) == (other.key, other.caption)
            assert sample.image == decode(other.image).tobytes()


def test_a_server_without_the_codec_is_an_error_with_the_mend(painter_shards: Path):
    with ServerProcess(painter_shards) as server:
        client = StreamClient(server.url, codec="u8")
        with pytest.raises(UserError, match=r"as jpeg, not as u8; .*decode=true`, or set data\.payload=jpeg"):
            list(client.read(REQUESTS))


class Squeezed:
    """A form of a test's own: pixels squeezed by zlib when they are asked for."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards = shards

    def views(self, split: str, samples: np.ndarray) -> list[memoryview | None]:
        _, _, images = self.shards.views(split, samples)
        return [memoryview(zlib.compress(decode(image or b"").tobytes())) for image in images]

    def prefetch(self, split: str, samples: np.ndarray) -> None:
        """They lie nowhere."""


def test_a_third_form_takes_an_entry_of_the_table_and_nothing_else(painter_shards, cache, monkeypatch):
    def make(shards: ShardSet, *, cache: str | Path | None, progress: bool) -> None:
        shards.forms["zlib"] = Squeezed(shards)

    squeezed = Payload(lambda data, out: copy_into(zlib.decompress(data), out), make)
    monkeypatch.setitem(PAYLOADS, "zlib", squeezed)

    def images(payload: str, url: str) -> list[torch.Tensor]:
        settings: dict = {"image_size_px": 16, "global_batch_size": 20, "num_workers": 0, "payload": payload}
        module = StreamDataModule(shards=painter_shards, url=url, **settings)
        module.setup()
        try:
            return [batch.images for batch, _ in zip(module.train_dataloader(), range(3))]
        finally:
            module.teardown()

    served = Settings(decode=True, cache=str(cache)).open(components_of(painter_shards))
    assert served.codecs == ("jpeg", "u8", "zlib")
    with running(served) as url:
        found = [images("jpeg", "shards"), images("zlib", "shards"), images("zlib", url)]
    for stored, *others in zip(*found, strict=True):
        assert all(torch.equal(stored, other) for other in others)
