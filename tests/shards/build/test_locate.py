"""`data.path` of a training: shards, something to build them from, or a weighted list of either."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.locate import Shards
from diffusion_art.shards.build.out_folder import digest_of
from diffusion_art.shards.mixture import Mixture, open_shards
from diffusion_art.shards.places import Component, components_of
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.folder.folder import ImageFolder
from diffusion_art.sources.parquet.parquet import Parquet
from diffusion_art.training.run.run_shards import shards_of
from tests.fakes_sources import captioned, encoded, jpegs, picture, wikiart_folder, write_files, write_parquet
from tests.sources.tars.test_tars import write_tar

SETTINGS = {
    "source": None,
    "image_size_px": 16,
    "fit": "crop",
    "jpeg_quality": 92,
    "val_fraction": 0.2,
    "caption_template": None,
}


def shards_at(path, data_dir: Path, **settings) -> Shards:
    """As a run has them whose `data` has these settings."""
    return shards_of({**SETTINGS, **settings, "path": path}, str(data_dir))


@pytest.fixture(scope="module")
def mixed(painter_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], Path]:
    """A list of shards and of a folder of pictures that is no shards yet, and where they are to be built."""
    root = tmp_path_factory.mktemp("mixed")
    captioned(root / "mine", 30)
    return [{"path": str(painter_shards), "weight": 3}, {"path": str(root / "mine"), "weight": 1}], root / "data"


def test_a_list_is_found_or_built_and_keeps_its_weights(mixed: tuple[list[dict], Path], painter_shards: Path):
    spec, data_dir = mixed
    for _ in range(2):  # built once, then found
        found = shards_at(spec, data_dir).ready()
        assert found == [Component(painter_shards, 3.0), Component(*data_dir.glob("mine-16px-??????"), 1.0)]
    shards = open_shards(found)
    assert isinstance(shards, Mixture)
    assert shards.shares("train") == [0.75, 0.25]


@pytest.mark.parametrize("url", ["auto", "shards"])
def test_a_run_reads_the_mixture(mixed: tuple[list[dict], Path], url: str):
    spec, data_dir = mixed
    asked = shards_at(spec, data_dir)
    data = StreamDataModule(
        shards=asked, url=url, image_size_px=16, global_batch_size=20, val_samples=10, num_workers=0
    )
    data.prepare_data()
    data.setup()
    try:
        shards = open_shards(asked.ready())
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
    painter = {"_target_": "diffusion_art.sources.painter.Painter", "count": 8}
    with pytest.raises(UserError, match=r"no data at data\.path=.*nowhere"):
        shards_at([str(painter_shards), str(tmp_path / "nowhere")], tmp_path, source=painter).ready()
    pictures = captioned(tmp_path / "pictures", 20)
    half = located(str(pictures), tmp_path / "half", val_fraction=0.5)
    none = located(str(pictures), tmp_path / "none", val_fraction=0.0)
    with pytest.raises(
        UserError, match=r"validation pictures of .*half.* are training pictures of .*none.*val_fraction"
    ):
        shards_at([*half, *none], tmp_path).ready()


def located(path: Path | list, data_dir: Path, **settings) -> list[Component]:
    return list(components_of(shards_at(path, data_dir, **settings).ready()))


def folder_of(path: Path, data_dir: Path, **settings) -> Path:
    (component,) = located(str(path), data_dir, **settings)
    return component.path


def test_each_collection_and_setting_has_a_folder_of_its_own_and_finds_it_again(tmp_path: Path):
    one, other = captioned(tmp_path / "a" / "monet", 12), captioned(tmp_path / "b" / "monet", 12, first=50)
    data_dir = tmp_path / "data"
    folders = [folder_of(one, data_dir), folder_of(other, data_dir), folder_of(one, data_dir, fit="stretch")]
    mixed = located([{"path": str(one), "weight": 1}, {"path": str(other), "weight": 1}], data_dir)
    assert [component.path for component in mixed] == folders[:2]
    (one / "99.png").write_bytes(encoded(picture(99), "PNG"))
    (one / "99.txt").write_text("one more")
    folders.append(folder_of(one, data_dir))
    assert len(set(folders)) == 4
    assert all(re.fullmatch(r"monet-16px-[0-9a-f]{6}", folder.name) for folder in folders)
    assert sum(ShardSet.open(folders[3]).splits.values()) == 13
    times = {file: file.stat().st_mtime_ns for folder in folders for file in folder.iterdir()}
    assert folder_of(one, data_dir) == folders[3]
    assert folder_of(other, data_dir) == folders[1]
    assert {file: file.stat().st_mtime_ns for folder in folders for file in folder.iterdir()} == times


def test_an_unchanged_collection_is_found_again_without_a_look_into_its_files(tmp_path: Path):
    pictures, data_dir = captioned(tmp_path / "mine", 12), tmp_path / "data"
    folder = folder_of(pictures, data_dir)
    file = pictures / "3.txt"
    before, text = file.stat(), file.read_text()
    file.write_text(text[::-1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert folder_of(pictures, data_dir) == folder
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    (data_dir / ".found" / "x.json").write_text("rubbish")
    folder_of(pictures, data_dir)  # looked at again: what comes of it is the source's own business
    for note in (data_dir / ".found").iterdir():
        note.write_text("rubbish")
    assert folder_of(pictures, data_dir).is_dir()


def test_captions_that_are_added_or_edited_later_are_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pictures, data_dir = tmp_path / "mine", tmp_path / "data"
    settings = {"val_fraction": 0.0}
    write_files(pictures, {**jpegs("a.jpg"), "table.csv": "file,title\na.jpg,a title\n"})
    before = folder_of(pictures, data_dir, **settings)
    assert "has changed" not in caplog.text
    found = []
    for number, file in enumerate(("table.csv", "a.txt", "a.txt")):
        write_files(
            pictures, {file: f"file,title\na.jpg,title {number}\n" if file.endswith("csv") else f"text {number}"}
        )
        with caplog.at_level("INFO"):
            folder = folder_of(pictures, data_dir, **settings)
        found.append(first_caption(folder))
        assert f"{pictures} has changed: its shards are in {folder} now; {before} holds it as it was" in caplog.text
        before = folder
    assert found == ["title 0", "text 1", "text 2"]


def test_texts_beside_the_pictures_of_a_table_are_seen(tmp_path: Path):
    write_files(tmp_path, {**jpegs("scans/a.jpg"), "tables/m.csv": "file,caption\na.jpg,by the table\n"})
    table, data_dir = tmp_path / "tables" / "m.csv", tmp_path / "data"
    assert first_caption(folder_of(table, data_dir, val_fraction=0.0)) == "by the table"
    write_files(tmp_path, {"scans/a.txt": "beside"})
    assert first_caption(folder_of(table, data_dir, val_fraction=0.0)) == "beside"


def test_pictures_beside_parquet_are_seen(tmp_path: Path):
    row = {"image": {"bytes": None, "path": "a.jpg"}, "text": "a house"}
    write_parquet(tmp_path / "mine" / "0.parquet", [row], schema=None)
    write_files(tmp_path / "mine", jpegs("a.jpg"))
    first = folder_of(tmp_path / "mine", tmp_path / "data", val_fraction=0.0)
    manifest = json.loads((first / "manifest.json").read_text())
    del manifest["extra"]["settings"]["source"]["beside"]  # as earlier versions told it
    (first / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(tmp_path / "data" / ".found")
    assert folder_of(tmp_path / "mine", tmp_path / "data", val_fraction=0.0) == first
    (tmp_path / "mine" / "a.jpg").write_bytes(encoded(picture(9)))
    assert folder_of(tmp_path / "mine", tmp_path / "data", val_fraction=0.0) != first


def first_caption(folder: Path) -> str:
    shards = ShardSet.open(folder)
    return shards.read(next(iter(shards.splits)), 0).caption


def test_shards_that_prepare_or_an_earlier_version_built_are_found(tmp_path: Path):
    wikiart_folder(tmp_path / "wikiart", count=10)
    plain = tmp_path / "data" / "wikiart-16px"
    settings = {name: SETTINGS[name] for name in ("image_size_px", "fit", "jpeg_quality", "val_fraction")}
    build_shards(Parquet(tmp_path / "wikiart"), plain, **settings, progress=False)
    assert folder_of(tmp_path / "wikiart", tmp_path / "data") == plain
    pictures = captioned(tmp_path / "mine", 12)
    old = tmp_path / "data" / "mine-16px"
    build_shards(ImageFolder(pictures), old, **settings, progress=False)
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["extra"]["settings"]["source"] = {"kind": "folder", "pictures": 12, "files": "as it was told once"}
    (old / "manifest.json").write_text(json.dumps(manifest))
    later = captioned(tmp_path / "elsewhere" / "mine", 12, first=30)
    for folder in (pictures, later):
        for file in (folder, *folder.iterdir()):
            os.utime(file, (1, 1))
    assert folder_of(pictures, tmp_path / "data") == old
    assert folder_of(later, tmp_path / "data") != old  # as old, as many, of that name, and others
    os.utime(pictures / "0.png")
    assert folder_of(pictures, tmp_path / "data") != old


def tar_of(file: Path, text: bytes) -> Path:
    """A tar of 12 pictures with that caption."""
    pictures = [(f"{number}.jpg", encoded(picture(number))) for number in range(12)]
    return write_tar(file, [member for name, data in pictures for member in ((name, data), (f"{name[:-4]}.txt", text))])


def test_tars_are_built_again_when_they_change_and_found_where_an_earlier_version_built_them(tmp_path: Path):
    """It told them by their names and sizes alone, in the manifest and in the name of the folder."""
    data_dir, tar = tmp_path / "data", tar_of(tmp_path / "mine" / "a.tar", b"one")
    for path in (tar, tar.parent):
        os.utime(path, (1, 1))
    folder, size = folder_of(tar.parent, data_dir), tar.stat().st_size
    manifest = json.loads((folder / "manifest.json").read_text())
    settings = manifest["extra"]["settings"]
    settings["source"] = {"kind": "webdataset", "files": [["a.tar", size]]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    old = folder.rename(data_dir / f"mine-16px-{digest_of(settings)}")
    shutil.rmtree(data_dir / ".found")
    assert folder_of(tar.parent, data_dir) == old
    assert tar_of(tar, b"two").stat().st_size == size
    new = folder_of(tar.parent, data_dir)
    assert new != old
    assert ShardSet.open(new).read("train", 0).caption == "two"


def test_a_list_of_classes_beside_tars_takes_none_of_the_shards_that_an_earlier_version_built(tmp_path: Path):
    data_dir, tar = tmp_path / "data", tar_of(tmp_path / "mine" / "a.tar", b"one")
    old = folder_of(tar.parent, data_dir)
    write_files(tar.parent, {"classes.txt": "boat\nhouse\n"})
    for path in (tar.with_name("classes.txt"), tar.parent):
        os.utime(path, (1, 1))
    shutil.rmtree(data_dir / ".found")
    assert "classes" in open_source(tar.parent).describe()
    assert folder_of(tar.parent, data_dir) == old
    os.utime(tar.with_name("classes.txt"))  # it was not there when the shards were built
    assert folder_of(tar.parent, data_dir) != old


def test_where_the_shards_are_that_hold_copies_too_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Earlier versions trained on them."""
    data_dir, pictures = tmp_path / "data", captioned(tmp_path / "mine" / "images", 12).parent
    old = folder_of(pictures, data_dir)
    write_files(pictures, jpegs(*(f"masks/{number}.png" for number in range(12))))
    settings = json.loads((old / "manifest.json").read_text())["extra"]["settings"]
    settings["source"]["files"] = open_source(pictures).describe()["files"]
    named = {name: value for name, value in settings.items() if name != "caption_template"}
    older = old.rename(data_dir / f"mine-16px-{digest_of(named)}")
    with caplog.at_level("INFO"):
        assert folder_of(pictures, data_dir) != older
    assert f"{older} holds them with their copies and masks" in caplog.text


def test_the_template_changes_and_the_shards_stay(tmp_path: Path, painter_shards: Path):
    pictures, data_dir = captioned(tmp_path / "mine", 12), tmp_path / "data"
    (first,) = located(str(pictures), data_dir, caption_template="{file_name}")
    stored = ShardSet.open(first.path).read("train", 0).caption
    assert stored.endswith(".png")
    for template, expected in (("{file_name}: {caption}", f"{stored}: swatch"), (None, "swatch"), ("", "")):
        for _ in range(2):
            (found,) = located(str(pictures), data_dir, caption_template=template)
            assert found.path == first.path
            assert open_shards([found]).captions("train", 0)[0].startswith(expected)
    (again,) = located(str(pictures), data_dir, caption_template="{file_name}")
    assert open_shards([again]).captions("train", 0)[0] == stored
    assert len([folder for folder in data_dir.iterdir() if folder.name.startswith("mine")]) == 1
    own = [{"path": str(painter_shards), "caption_template": "{style}"}, str(pictures)]
    assert [component.caption_template for component in located(own, data_dir)] == ["{style}", "{caption}"]
    with pytest.raises(UserError, match=r"asks for \{nothing\}, which the pictures do not have"):
        open_shards(located(str(painter_shards), data_dir, caption_template="{nothing}"))


def test_settings_of_the_build_reach_it(tmp_path: Path):
    pictures = captioned(tmp_path / "mine", 12)
    for number in range(3):
        (pictures / f"bad{number}.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"raise max_bad \(data\.build\.max_bad of a training\)"):
        folder_of(pictures, tmp_path / "data", build={"max_bad": 2})
    folder = folder_of(pictures, tmp_path / "data", build={"max_bad": 3, "limit": 7, "workers": 1})
    assert sum(ShardSet.open(folder).splits.values()) == 7
    with pytest.raises(UserError, match="workers=0 is out of range"):
        folder_of(pictures, tmp_path / "data", build={"workers": 0})


def test_a_source_with_other_settings_is_built_beside(tmp_path: Path):
    painter = {"_target_": "diffusion_art.sources.painter.Painter", "count": 20, "seed": 0, "image_size_px": 16}
    plain = tmp_path / "painter-16px"
    assert folder_of(plain, tmp_path, source=painter) == plain
    assert folder_of(plain, tmp_path, source={**painter, "count": 24}).name.startswith("painter-16px-")
    assert folder_of(plain, tmp_path, source=painter) == plain


def test_pictures_that_the_painter_has_not_made_are_read_and_none_are_painted(painter_shards: Path, tmp_path: Path):
    painter = {"_target_": "diffusion_art.sources.painter.Painter", "count": 20, "seed": 0, "image_size_px": 16}
    pictures = captioned(tmp_path / "mine", 12)
    mine = folder_of(pictures, tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    for path in (pictures, mine, [str(mine)], [str(painter_shards), str(mine)], f"file://{mine}"):
        assert shards_at(path, tmp_path / "data", source=painter).lie_elsewhere(), path
    assert folder_of(mine, tmp_path / "data", source=painter) == mine
    assert sorted(tmp_path.rglob("*")) == before
    for path in (painter_shards, [str(painter_shards)], tmp_path / "nothing yet", f"file://{painter_shards}"):
        assert not shards_at(path, tmp_path / "data", source=painter).lie_elsewhere(), path
    assert not shards_at(mine, tmp_path / "data").lie_elsewhere()  # without a source there is nothing to choose


class Album(ImageFolder):
    """A source by another's name, in a module that is called after the painter."""

    opened = 0

    def __init__(self, path: Path) -> None:
        type(self).opened += 1
        super().__init__(path)


def test_finished_shards_are_checked_only_against_sources_that_open_at_once(tmp_path: Path, monkeypatch):
    """The class says whether it does; what its module is called says nothing."""
    pictures, plain = captioned(tmp_path / "mine", 12), tmp_path / "mine-16px"
    monkeypatch.setattr("diffusion_art.sources.painter.Album", Album, raising=False)
    monkeypatch.setattr(Album, "__module__", "diffusion_art.sources.painter")
    album = {"_target_": "diffusion_art.sources.painter.Album", "path": str(pictures)}
    for _ in range(2):
        assert folder_of(plain, tmp_path, source=album) == plain
    assert Album.opened == 1
    monkeypatch.setattr(Album, "opens_at_once", True, raising=False)
    assert folder_of(plain, tmp_path, source=album) == plain
    assert Album.opened > 1


def test_every_run_says_how_many_pictures_have_no_caption(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pictures = captioned(tmp_path / "mine", 30)
    for number in range(3):
        (pictures / f"{number}.txt").unlink()
    for _ in range(2):
        data = StreamDataModule(
            shards=shards_at(str(pictures), tmp_path / "data"),
            url="shards",
            image_size_px=16,
            global_batch_size=4,
            num_workers=0,
        )
        caplog.clear()
        data.setup()
        data.teardown()
        assert "3 of 30 pictures have no caption" in caplog.text
        assert data.without_caption == 3


def test_a_manifest_of_iiif_or_of_a_page_makes_no_shards_of_a_folder(tmp_path: Path):
    """It lies beside the pictures that it describes, by the same name."""
    for name, manifest in {
        "book": {"type": "Manifest", "label": "x", "items": []},
        "page": {"name": "My Pictures", "icons": [], "start_url": "/"},
    }.items():
        pictures = captioned(tmp_path / name, 12)
        write_files(pictures, {"manifest.json": json.dumps(manifest)})
        assert sum(ShardSet.open(folder_of(pictures, tmp_path / "data")).splits.values()) == 12
        with pytest.raises(UserError, match=f"{name} holds other files"):
            build_shards(ImageFolder(pictures), pictures, image_size_px=16, overwrite=True)
        assert json.loads((pictures / "manifest.json").read_text()) == manifest
    (tmp_path / "book" / "manifest.json").write_text('{"format": "diffusion-art-shards", "version": 9}')
    with pytest.raises(UserError, match="version 9"):
        folder_of(tmp_path / "book", tmp_path / "data")
