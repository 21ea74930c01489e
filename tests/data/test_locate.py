"""`data.path` of a training: shards, something to build them from, or a weighted list of either."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from diffusion_art.config import build
from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.data.locate import locate_shards
from diffusion_art.errors import UserError
from diffusion_art.streaming.mixture import Component, Mixture, open_shards
from tests.fakes_sources import encoded, picture

SETTINGS = {
    "source": None,
    "image_size_px": 16,
    "fit": "crop",
    "jpeg_quality": 92,
    "val_fraction": 0.2,
    "caption_template": None,
}


def captioned(folder: Path, count: int, *, first: int = 0) -> Path:
    """`count` pictures with a text beside each."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        (folder / f"{number}.png").write_bytes(encoded(picture(number), "PNG"))
        (folder / f"{number}.txt").write_text(f"swatch {number}")
    return folder


@pytest.fixture(scope="module")
def mixed(painter_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], Path]:
    """A list of shards and of a folder of pictures that is no shards yet, and where they are to be built."""
    root = tmp_path_factory.mktemp("mixed")
    captioned(root / "mine", 30)
    return [{"path": str(painter_shards), "weight": 3}, {"path": str(root / "mine"), "weight": 1}], root / "data"


def test_a_list_is_found_or_built_and_keeps_its_weights(mixed: tuple[list[dict], Path], painter_shards: Path):
    spec, data_dir = mixed
    for _ in range(2):  # built once, then found
        found = locate_shards({**SETTINGS, "path": spec}, str(data_dir), build=build)
        assert found == [Component(painter_shards, 3.0), Component(*data_dir.glob("mine-16px-??????"), 1.0)]
    shards = open_shards(found)
    assert isinstance(shards, Mixture)
    assert shards.shares("train") == [0.75, 0.25]


@pytest.mark.parametrize("url", ["auto", "shards"])
def test_a_run_reads_the_mixture(mixed: tuple[list[dict], Path], url: str):
    spec, data_dir = mixed

    def prepare():
        return locate_shards({**SETTINGS, "path": spec}, str(data_dir), build=build)

    data = StreamDataModule(
        prepare_shards=prepare, url=url, image_size_px=16, global_batch_size=20, val_samples=10, num_workers=0
    )
    data.prepare_data()
    data.setup()
    try:
        shards = open_shards(prepare())
        mine = {shards.components[1].key("train", i) for i in range(shards.components[1].splits["train"])}
        loader = data.train_dataloader()
        loader.dataset.last_batch = 50
        batches = list(loader)
        positions = [position for batch in batches for position in batch.positions]
        assert positions == list(range(1000))
        owners = Counter(key in mine for batch in batches for key in batch.keys)
        assert owners == {True: 250, False: 750}
        assert data.info.digest == shards.digest
    finally:
        data.teardown()


def test_entries_that_are_not_there_or_leak_are_refused(painter_shards: Path, tmp_path: Path):
    settings = {**SETTINGS, "source": {"_target_": "diffusion_art.sources.painter.Painter", "count": 8}}
    with pytest.raises(UserError, match=r"no data at data\.path=.*nowhere"):
        locate_shards(
            {**settings, "path": [str(painter_shards), str(tmp_path / "nowhere")]}, str(tmp_path), build=build
        )
    pictures = captioned(tmp_path / "pictures", 20)
    half = locate_shards({**SETTINGS, "val_fraction": 0.5, "path": str(pictures)}, str(tmp_path / "half"), build=build)
    none = locate_shards({**SETTINGS, "val_fraction": 0.0, "path": str(pictures)}, str(tmp_path / "none"), build=build)
    with pytest.raises(
        UserError, match=r"validation pictures of .*half.* are training pictures of .*none.*val_fraction"
    ):
        locate_shards({**SETTINGS, "path": [*half, *none]}, str(tmp_path), build=build)
