"""`sources/detect.py` and `data_set_name`: what lies at a path, and what to call it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.folder.folder import ImageFolder
from diffusion_art.sources.folder.records import Records
from diffusion_art.sources.parquet.parquet import Parquet
from diffusion_art.sources.paths.names import data_set_name
from diffusion_art.sources.tars.tars import Tars
from tests.fakes_sources import captions_of, encoded, jpegs, picture, wikiart_folder, write_files, write_parquet
from tests.sources.tars.test_tars import sample, write_tar


def test_each_kind_is_known_by_its_look(tmp_path: Path) -> None:
    parquet = wikiart_folder(tmp_path / "parquet", count=1)
    (tmp_path / "tars").mkdir()
    tar = write_tar(tmp_path / "tars" / "0.tar", sample(0))
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    (tmp_path / "pictures" / "deep" / "a.png").write_bytes(encoded(picture(0), "PNG"))
    assert isinstance(open_source(parquet), Parquet)
    assert isinstance(open_source(next(parquet.rglob("*.parquet"))), Parquet)
    assert isinstance(open_source(tar.parent), Tars)
    assert isinstance(open_source(tar), Tars)
    (tmp_path / "links.csv").write_text("file\na.png\n")
    assert isinstance(open_source(tmp_path / "links.csv"), Records)
    source = open_source(tmp_path / "pictures", name="mine", caption_template="{file_name}")
    assert isinstance(source, ImageFolder)
    assert (source.name, source.caption_template) == ("mine", "{file_name}")


def test_parquet_decides_only_where_it_holds_pictures(tmp_path: Path) -> None:
    text = [{"file_name": "a.jpg", "text": "a cat"}]
    write_files(tmp_path / "pictures", jpegs("a.jpg"))
    write_parquet(tmp_path / "pictures" / "anything.parquet", text, schema=None)
    write_tar(write_files(tmp_path / "tars", {"x/y.txt": ""}) / "x" / "0.tar", sample(0))
    write_parquet(tmp_path / "tars" / "links.parquet", text, schema=None)
    assert captions_of(open_source(tmp_path / "pictures")) == {"a.jpg": "a cat"}
    assert isinstance(open_source(tmp_path / "pictures" / "anything.parquet"), Records)
    assert isinstance(open_source(tmp_path / "tars"), Tars)
    (tmp_path / "pictures" / "broken.parquet").write_bytes(b"PAR1")
    assert isinstance(open_source(tmp_path / "pictures"), ImageFolder)
    write_parquet(tmp_path / "only" / "links.parquet", text, schema=None)
    with pytest.raises(UserError, match=r"no column of image bytes among \['file_name', 'text'\]"):
        open_source(tmp_path / "only")


def test_embeddings_beside_pictures_are_no_pictures(tmp_path: Path) -> None:
    """A column of bytes is one of images where nothing else can be, and where its first rows look like it."""
    rows = [{"file_name": "a.jpg", "text": "a cat", "embedding": b"\x01\x02"}]
    write_parquet(write_files(tmp_path, jpegs("a.jpg")) / "metadata.parquet", rows, schema=None)
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a cat"}
    for content in (encoded(picture(0), "WEBP"), encoded(picture(0), "AVIF"), None):
        schema = pa.schema([("thumb", pa.binary())])
        write_parquet(tmp_path / "metadata.parquet", [{"thumb": None}, {"thumb": content}], schema=schema)
        assert isinstance(open_source(tmp_path), Parquet)


def test_what_is_none_of_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds nothing to learn from"):
        open_source(tmp_path)
    write_files(tmp_path / "phone", {"a.zip": "PK", "b.jxl": "x"})
    with pytest.raises(UserError, match=r"nothing to learn from \(left out: 1 files \.\w+: "):
        open_source(tmp_path / "phone")
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"a\.zip is no \.parquet or \.tar .*an archive; unpack it"):
        open_source(tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "a.jpg"])
def test_a_pointer_of_git_lfs_says_how_the_file_comes(tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    write_files(tmp_path, {name: pointer})
    with pytest.raises(UserError, match="git lfs pull"):
        build_shards(open_source(tmp_path), tmp_path / "out", image_size_px=16, max_bad=0, progress=False)


def test_a_half_built_shard_folder_is_no_source(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-000000.tar", sample(0))
    (tmp_path / ".building").mkdir()
    with pytest.raises(UserError, match="unfinished build"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("WikiArt/data", "wikiart"),
        ("My Paintings (2024)", "my-paintings-2024"),
        ("Kunst/Gemälde/train/", "gemalde"),
        ("open_clip.art", "open_clip-art"),
    ],
)
def test_names_come_from_the_nearest_telling_folder(path: str, name: str) -> None:
    assert data_set_name(Path("/collections") / path) == name
