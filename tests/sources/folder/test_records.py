"""`sources/folder/records.py`: one table that names pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_art.errors import UserError
from diffusion_art.sources.base import Source
from diffusion_art.sources.detect import open_source
from diffusion_art.sources.folder.records import Records
from tests.fakes_sources import captions_of, jpegs, write_files, write_parquet
from tests.sources.folder.test_collections import coco


@pytest.fixture
def museum(tmp_path: Path) -> Path:
    write_files(tmp_path / "museum", jpegs("img/1.jpg", "img/2.jpg", "img/3.jpg"))
    table = "id;scan;caption\n1;1.jpg;one\n2;2.jpg;two\n2;2.jpg;a second\n"
    write_files(tmp_path / "museum", {"objects.csv": table, "other.csv": "scan;caption\n3.jpg;three\n"})
    return tmp_path / "museum"


def test_only_the_pictures_of_the_table_take_part(museum: Path) -> None:
    source = Records(museum / "objects.csv")
    assert isinstance(source, Source)
    assert (source.name, source.count) == ("museum", 2)
    assert captions_of(source) == {"img/1.jpg": "one", "img/2.jpg": ("two", "a second")}
    assert source.left_out() == {"pictures that the table does not name": 1}
    assert isinstance(open_source(museum / "objects.csv"), Records)


def test_the_description_follows_the_table_and_the_pictures(museum: Path) -> None:
    before = Records(museum / "objects.csv").describe()
    json.dumps(before)
    (museum / "other.csv").write_text("nothing to do with it")
    assert Records(museum / "objects.csv").describe() == before
    (museum / "objects.csv").write_text("id;scan;caption\n1;1.jpg;One\n")
    assert Records(museum / "objects.csv").describe() != before


def test_a_tab_may_be_written_as_in_a_program(museum: Path) -> None:
    write_files(museum, {"tabs.csv": "scan\tcaption\n1.jpg\tone; two\n"})
    assert captions_of(Records(museum / "tabs.csv", delimiter="\\t")) == {"img/1.jpg": "one; two"}


def test_pictures_elsewhere(museum: Path, tmp_path: Path) -> None:
    table = tmp_path / "tables" / "deep" / "x.parquet"
    write_parquet(table, [{"key": "1", "text": "one"}], schema=None)
    assert captions_of(Records(table, images=museum / "img", file_column="key")) == {"1.jpg": "one"}
    assert captions_of(
        open_source(write_files(museum / "lists", {"a.jsonl": '{"f": "1.jpg", "text": "x"}'}) / "a.jsonl")
    )


def test_cocos_annotations_lie_beside_the_pictures_folder(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("train2017/000000000009.jpg"))
    write_files(tmp_path, {"annotations/captions_train2017.json": coco(9, "one", "two")})
    source = Records(tmp_path / "annotations" / "captions_train2017.json")
    assert captions_of(source) == {"train2017/000000000009.jpg": ("one", "two")}


def test_mistakes_name_what_helps(museum: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*nowhere\.csv"):
        Records(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match=r"there is no folder .*source\.images=FOLDER"):
        Records(museum / "objects.csv", images=tmp_path / "gone")
    with pytest.raises(UserError, match=r"has no column `file`\. Its columns: id, scan, caption\."):
        list(Records(museum / "objects.csv", file_column="file").chunks())
    write_files(museum, {"objects.xlsx": "PK"})
    with pytest.raises(UserError, match="a spreadsheet; save it as csv"):
        Records(museum / "objects.xlsx")
    with pytest.raises(UserError, match=r"source\.delimiter=\|\| is not one character"):
        Records(museum / "objects.csv", delimiter="||")
    write_files(tmp_path / "links", {"a.csv": "url,caption\nhttp://x/9.jpg,one\n"} | jpegs("1.jpg"))
    with pytest.raises(UserError, match=r"names no picture below .*columns url, caption.*source\.file_column=NAME"):
        list(Records(tmp_path / "links" / "a.csv").chunks())
