"""`sources/tables/classes.py`: numbers of classes, and the lists of their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from diffusion_art.sources.paths.listing import list_files
from diffusion_art.sources.tables.classes import class_lists
from tests.fakes_sources import captions_of, encoded, jpegs, picture, read_all, write_files, write_parquet
from tests.sources.tars.test_tars import write_tar

LISTS = {
    "classes.txt": "tench\ngold_fish\n",
    "classnames.txt": "0 tench\n1 gold fish\n",
    "class.txt": "tench, gold_fish",
    "categories.txt": "/g/gold_fish 1\n/t/tench 0\n",
    "class_names.json": '["tench", "gold fish"]',
    "labels.json": '{"0": "tench", "1": "gold fish"}',
    "label_num_to_style_map.json": '{"0": "tench", "1": "gold fish"}',
    "class_to_idx.json": '{"tench": 0, "gold fish": 1}',
    "imagenet_classes.json": '{"gold fish": 1, "tench": 0}',
}


@pytest.mark.parametrize("name", LISTS)
def test_cls_beside_pictures_and_in_tars(tmp_path: Path, name: str) -> None:
    folder, tars = tmp_path / "folder", tmp_path / "tars"
    write_files(folder, {**jpegs("a.jpg", "b.jpg"), "a.cls": "0", "b.cls": "1\n", name: LISTS[name]})
    source = open_source(folder)
    assert captions_of(source) == {"a.jpg": "tench", "b.jpg": "gold fish"}
    assert source.left_out() == {}
    write_files(tars, {name: LISTS[name]})
    write_tar(tars / "0.tar", [("a.jpg", encoded(picture(0))), ("a.cls", b"1")])
    assert captions_of(open_source(tars)) == {"0.tar a": "gold fish"}
    assert len(read_all(open_source(tars))) == 1


def test_folders_called_by_numbers(tmp_path: Path) -> None:
    write_files(tmp_path, {**jpegs("0/a.jpg", "1/b.jpg"), "classes.txt": LISTS["classes.txt"]})
    assert captions_of(open_source(tmp_path)) == {"0/a.jpg": "tench", "1/b.jpg": "gold fish"}


def test_names_in_cls_need_no_list(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.jpg", encoded(picture(0))), ("a.cls", b"gold fish")])
    assert captions_of(open_source(tmp_path)) == {"0.tar a": "gold fish"}


def test_the_lists_of_artgan(tmp_path: Path) -> None:
    """`style_train.csv` without a header holds numbers of styles."""
    write_files(tmp_path, jpegs("wikiart/1.jpg", "wikiart/2.jpg"))
    write_files(tmp_path, {"style_train.csv": "1.jpg,1\n", "style_val.csv": "2.jpg,0\n"})
    write_files(tmp_path, {"style_class.txt": "0 Abstract_Expressionism\n1 Cubism\n"})
    write_files(tmp_path, {"genre_train.csv": "1.jpg,0\n2.jpg,0\n", "genre_class.txt": "0 still_life\n"})
    assert captions_of(open_source(tmp_path)) == {
        "wikiart/1.jpg": "Cubism / still life",
        "wikiart/2.jpg": "Abstract Expressionism / still life",
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "file,caption\n1.jpg,a house\n2.jpg,a tree\n"),
        ("labels.json", '{"1": "a house", "2": "a tree"}'),
        ("id_to_caption.json", '{"1": "a house", "2": "a tree"}'),
        ("labels.json", '[{"image": "1.jpg", "caption": "a house"}, {"image": "2.jpg", "caption": "a tree"}]'),
    ],
)
def test_what_names_pictures_is_captions_however_it_is_called(tmp_path: Path, name: str, text: str) -> None:
    write_files(tmp_path, {**jpegs("1.jpg", "2.jpg"), name: text})
    assert captions_of(open_source(tmp_path)) == {"1.jpg": "a house", "2.jpg": "a tree"}


@pytest.mark.parametrize(("name", "text"), [("labels.txt", "a.jpg 3\nb.jpg 4\n"), ("labels.json", '{"a.jpg": 3}')])
def test_lists_of_pictures_are_no_lists_of_classes(tmp_path: Path, name: str, text: str) -> None:
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg"), name: text})
    assert class_lists(list_files(tmp_path)) == {}


def test_numbers_in_parquet(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": encoded(picture(number))}, "label": number} for number in range(2)]
    write_parquet(tmp_path / "a.parquet", rows, schema=None)
    write_files(tmp_path, {"classes.txt": LISTS["classes.txt"]})
    assert list(captions_of(open_source(tmp_path)).values()) == ["tench", "gold fish"]


def test_years_behind_names_are_no_numbers_of_classes(tmp_path: Path) -> None:
    write_files(tmp_path, {**jpegs("0/a.jpg", "1/b.jpg"), "classes.txt": "Acura RL 2012\nAudi TT 2011\n"})
    assert captions_of(open_source(tmp_path)) == {"0/a.jpg": "Acura RL 2012", "1/b.jpg": "Audi TT 2011"}


def test_pictures_called_by_numbers_have_the_classes_that_a_table_gives_them(tmp_path: Path) -> None:
    """Where none does, such a list names them: it is captions."""
    write_files(tmp_path, {**jpegs("0000.jpg", "0001.jpg"), "id2label.json": '{"0": "tench", "1": "gold fish"}'})
    assert captions_of(open_source(tmp_path)) == {"0000.jpg": "tench", "0001.jpg": "gold fish"}
    write_files(tmp_path, {"labels.csv": "file,label\n0000.jpg,1\n0001.jpg,0\n"})
    assert captions_of(open_source(tmp_path)) == {"0000.jpg": "gold fish", "0001.jpg": "tench"}
