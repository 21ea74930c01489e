"""`sources/tars/captions.py`: what stands elsewhere about the samples of tars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.base import LeftOut
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.paths.splits import TEST_SPLIT
from diffusion_art.sources.tars.tars import Tars
from tests.fakes_sources import captions_of, encoded, picture, read_all, write_files, write_parquet
from tests.sources.tars.test_tars import write_tar


def jpg(number: int) -> bytes:
    return encoded(picture(number))


def test_captions_in_another_tar_than_the_pictures(tmp_path: Path) -> None:
    """Keys begin anew in each tar; those of the same number go together."""
    for number in (0, 1):
        write_tar(tmp_path / f"images-00{number}.tar", [(f"{key}.jpg", jpg(10 * number + key)) for key in range(3)])
        texts = [(f"{key}.txt", f"{number} {key}\nmore".encode()) for key in range(2)]
        write_tar(tmp_path / f"captions-00{number}.tar", texts)
    assert captions_of(open_source(tmp_path)) == {
        "images-000.tar 0": ("0 0", "more"),
        "images-000.tar 1": ("0 1", "more"),
        "images-000.tar 2": "",
        "images-001.tar 0": ("1 0", "more"),
        "images-001.tar 1": ("1 1", "more"),
        "images-001.tar 2": "",
    }


def test_one_tar_of_texts_for_several_of_pictures(tmp_path: Path) -> None:
    for number in (0, 1):
        write_tar(tmp_path / f"{number}.tar", [(f"x/{number}.jpg", jpg(number))])
    write_tar(tmp_path / "texts.tar", [("t/0.txt", b"one"), ("t/1.txt", b"two"), ("t/9.txt", b"whose?")])
    assert captions_of(open_source(tmp_path)) == {"0.tar x/0": "one", "1.tar x/1": "two"}


def test_a_tar_that_begins_with_texts_has_its_pictures_still(tmp_path: Path) -> None:
    members = [(f"captions/{key}.txt", b"text") for key in range(20)] + [
        (f"images/{key}.jpg", jpg(key)) for key in range(20)
    ]
    write_tar(tmp_path / "a.tar", members)
    write_tar(tmp_path / "b.tar", [("0.jpg", jpg(30)), ("0.txt", b"own")])
    assert sorted(captions_of(open_source(tmp_path)).values()) == ["own", *["text"] * 20]


TABLES = {
    "captions.csv": "key,caption\n000,one\n001,two\n",
    "metadata.jsonl": '{"file_name": "000.jpg", "text": "one"}\n{"file_name": "001.jpg", "text": "two"}\n',
    "x.tsv": "image\tcaption\n/data/x/000.jpg\tone\n/data/x/001.jpg\ttwo\n",
}


@pytest.mark.parametrize("name", [*TABLES, "recaptioned.parquet"])
def test_tables_beside_tars(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "00000.tar", [("000.jpg", jpg(0)), ("001.jpg", jpg(1))])
    write_parquet(tmp_path / "00000.parquet", [{"key": "000", "caption": "img2dataset's"}], schema=None)
    if name in TABLES:
        write_files(tmp_path, {name: TABLES[name]})
    else:
        rows = [{"key": "000", "re_caption": "one"}, {"key": "001", "re_caption": "two"}]
        write_parquet(tmp_path / name, rows, schema=None)
    source = open_source(tmp_path)
    assert isinstance(source, Tars)
    assert captions_of(source) == {"00000.tar 000": "one", "00000.tar 001": "two"}
    assert source.left_out() == {}


def test_a_text_in_the_tar_goes_before_a_table_and_a_table_before_json(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar",
        [("0.jpg", jpg(0)), ("0.txt", b"text"), ("1.jpg", jpg(1)), ("1.json", b'{"caption": "json"}')],
    )
    write_files(tmp_path, {"captions.csv": "file,caption\n0.jpg,table\n1.jpg,table\n"})
    assert captions_of(open_source(tmp_path)) == {"a.tar 0": "text", "a.tar 1": "table"}


def test_a_table_within_a_tar(tmp_path: Path) -> None:
    """As the `imagefolder` of Hugging Face is packed; the splits in its rows hold."""
    rows = [
        {"file_name": f"{key}.jpg", "text": f"picture {key}", "split": ("train", "test")[key == 2]} for key in range(3)
    ]
    table = "\n".join(map(json.dumps, rows)).encode()
    write_tar(
        tmp_path / "a.tar", [("x/0.jpg", jpg(0)), ("x/1.jpg", jpg(1)), ("x/2.jpg", jpg(2)), ("x/metadata.jsonl", table)]
    )
    source = Tars(tmp_path / "a.tar")
    assert captions_of(source) == {"a.tar x/0": "picture 0", "a.tar x/1": "picture 1"}
    assert [item for item in read_all(source) if isinstance(item, LeftOut)] == [LeftOut("a.tar x/2", TEST_SPLIT)]


def test_a_table_that_changes_makes_other_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [("0.jpg", jpg(0)), ("1.jpg", jpg(1))])
    write_files(tmp_path / "in", {"captions.csv": "file,caption\n0.jpg,one\n1.jpg,two\n"})
    settings = {"image_size_px": 16, "val_fraction": 0.0, "progress": False, "workers": 1}
    build_shards(open_source(tmp_path / "in"), tmp_path / "out", **settings)
    shards = ShardSet.open(tmp_path / "out")
    assert {shards.captions("train", i) for i in range(2)} == {("one",), ("two",)}
    write_files(tmp_path / "in", {"captions.csv": "file,caption\n0.jpg,other\n1.jpg,words\n"})
    with pytest.raises(UserError, match="out was built"):
        build_shards(open_source(tmp_path / "in"), tmp_path / "out", **settings)


@pytest.mark.parametrize(
    ("image", "text"), [("0.input.jpg", "0.outputs.txt"), ("0.img", "0.cap"), ("0.image", "0.text")]
)
def test_members_that_are_called_otherwise(tmp_path: Path, image: str, text: str) -> None:
    write_tar(tmp_path / "a.tar", [(image, jpg(0)), (text, b"a red house")])
    assert list(captions_of(open_source(tmp_path)).values()) == ["a red house"]
