"""`sources/tables/table.py`: rows of csv files as people have them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from diffusion_art.sources.tables.delimited import LONG_ROWS, SHORT_ROWS, UNCLOSED
from diffusion_art.sources.tables.table import could_be_table, read_table


def is_picture(text: str) -> bool:
    return text.strip().endswith(".jpg")


def rows(path: Path, text: str, **options: str) -> tuple[list[dict], Counter[str]]:
    path.write_text(text, "utf-8")
    notes: Counter[str] = Counter()
    return [row for _, row in read_table(path, notes, is_picture=is_picture, **options)], +notes


@pytest.mark.parametrize("mark", [",", ";", "\t", "|", "| "])
def test_the_separator_is_found(tmp_path: Path, mark: str) -> None:
    text = f"file{mark}title\na.jpg{mark}one\nb.jpg{mark}two\n"
    found, notes = rows(tmp_path / "x.csv", text)
    assert [{name: value.strip() for name, value in row.items()} for row in found] == [
        {"file": "a.jpg", "title": "one"},
        {"file": "b.jpg", "title": "two"},
    ]
    assert not notes


def test_commas_in_the_last_column_need_no_quotes(tmp_path: Path) -> None:
    found, notes = rows(tmp_path / "x.csv", "file,caption\na.jpg,red, green, blue\nb.jpg\n")
    assert found == [{"file": "a.jpg", "caption": "red, green, blue"}, {"file": "b.jpg"}]
    assert notes == {LONG_ROWS: 1, SHORT_ROWS: 1}


def test_quoted_fields_keep_separators_and_lines(tmp_path: Path) -> None:
    found, _ = rows(tmp_path / "x.csv", 'file,caption\na.jpg,"red, ""green""\nblue"\n')
    assert found == [{"file": "a.jpg", "caption": 'red, "green"\nblue'}]


def test_a_stray_quotation_mark_swallows_no_rows_between_tabs(tmp_path: Path) -> None:
    found, _ = rows(tmp_path / "x.tsv", 'file\tcaption\na.jpg\t"one\nb.jpg\ttwo\n')
    assert [row["caption"] for row in found] == ['"one', "two"]


def test_a_table_without_a_header(tmp_path: Path) -> None:
    assert rows(tmp_path / "x.csv", "a.jpg,3,a cat\n")[0] == [
        {"file_name": "a.jpg", "column_2": "3", "caption": "a cat"}
    ]
    assert rows(tmp_path / "x.csv", "a.jpg,12\n")[0] == [{"file_name": "a.jpg", "label": "12"}]
    assert rows(tmp_path / "x.csv", "a cat,a.jpg\n")[0] == [{"caption": "a cat", "file_name": "a.jpg"}]


@pytest.mark.parametrize(
    ("name", "row", "caption"),
    [
        ("x.tsv", "a.jpg\tred, green, blue, cyan, grey", "red, green, blue, cyan, grey"),
        ("x.csv", "a.jpg\tred, green, blue, cyan, grey", "red, green, blue, cyan, grey"),
        ("x.txt", "red, green, blue, cyan, grey\ta.jpg", "red, green, blue, cyan, grey"),
        ("x.tsv", "a.jpg,red", "red"),
    ],
)
def test_commas_in_the_first_caption_cut_nothing(tmp_path: Path, name: str, row: str, caption: str) -> None:
    found, _ = rows(tmp_path / name, f"{row}\nb.jpg\ttwo\n")
    assert found[0] == {"file_name": "a.jpg", "caption": caption}


def test_commas_in_captions_without_a_header_make_no_columns(tmp_path: Path) -> None:
    found, notes = rows(tmp_path / "x.csv", "a.jpg,a red dog, big\nb.jpg,a cat\nc.jpg,one, two, three\n")
    assert [row["caption"] for row in found] == ["a red dog, big", "a cat", "one, two, three"]
    assert notes == {LONG_ROWS: 2}


@pytest.mark.parametrize("second", ["b.jpg,two, too", 'b.jpg,"two, too"'])
def test_a_quotation_mark_that_is_not_closed_swallows_no_pictures(tmp_path: Path, second: str) -> None:
    found, notes = rows(tmp_path / "x.csv", f'file,caption\na.jpg,"one\nand a half\n{second}\nc.jpg,three\n')
    assert [(row["file"], row["caption"].strip('"')) for row in found] == [
        ("a.jpg", "one\nand a half"),
        ("b.jpg", "two, too"),
        ("c.jpg", "three"),
    ]
    assert notes[UNCLOSED] == 1


def test_excel_is_told_the_separator(tmp_path: Path) -> None:
    text = "sep=;\r\nfile;title\r\na.jpg;red, green\r\n"
    assert rows(tmp_path / "x.csv", text)[0] == [{"file": "a.jpg", "title": "red, green"}]


def test_json_that_is_lines_and_a_given_separator(tmp_path: Path) -> None:
    assert rows(tmp_path / "x.json", '{"file": "a.jpg"}\n{"file": "b.jpg"}\n')[0] == [
        {"file": "a.jpg"},
        {"file": "b.jpg"},
    ]
    assert rows(tmp_path / "x.jsonl", '[{"file": "a.jpg"},\n {"file": "b.jpg"}]')[0][1] == {"file": "b.jpg"}
    assert rows(tmp_path / "x.csv", "file:title\na.jpg:one\n", delimiter=":")[0] == [{"file": "a.jpg", "title": "one"}]


def test_a_text_is_a_table_when_it_names_pictures_in_fields(tmp_path: Path) -> None:
    for text, table in (("image,caption\na.jpg,x", True), ("a.jpg is a fine picture", False), ("one, two", False)):
        for encoding in ("utf-8", "utf-16"):
            (tmp_path / "x.txt").write_text(text, encoding)
            assert could_be_table(tmp_path / "x.txt", is_picture) == table
