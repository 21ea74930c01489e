"""`sources/tables/delimited.py`: csv as people and programs write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from diffusion_art.sources.tables.delimited import ABOVE
from tests.fakes_sources import captions_of, jpegs, notes_of, write_files

ROWS = "file_name,caption\na.jpg,a red house\nb.jpg,a blue boat\n"


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ('file_name,caption\na.jpg,"a \\"red\\" house, big"\nb.jpg,"a boat"\n', ('a "red" house, big', "a boat")),
        ('file_name,folder,caption\na.jpg,"C:\\x\\",a house\nb.jpg,"C:\\x\\",a boat\n', ("a house", "a boat")),
        ("'file_name','caption'\n'a.jpg','a red house'\n'b.jpg','a blue boat'\n", ("a red house", "a blue boat")),
        ("file_name,caption\na.jpg,a red house\nb.jpg,\\N\n", ("a red house", "")),
        ('file_name,caption\n="a.jpg",="a red house"\n="b.jpg",="a blue boat"\n', ("a red house", "a blue boat")),
        ('file_name, caption\na.jpg, "a red house, big"\nb.jpg, "a blue boat"\n', ("a red house, big", "a blue boat")),
        ('file_name,caption\na.jpg,<a href="x">a</a> house\nb.jpg,a boat\n', ("a house", "a boat")),
        (ROWS.replace("\n", "\r"), ("a red house", "a blue boat")),
        (ROWS.replace("b.jpg", "file_name,caption\nb.jpg"), ("a red house", "a blue boat")),
        ('file_name,caption\na.jpg,a sign, "hi"\nb.jpg,a board, "no"\n', ('a sign, "hi"', 'a board, "no"')),
        ("# id,file,caption\n1,a.jpg,a red house\n2,b.jpg,a blue boat\n", ("a red house", "a blue boat")),
    ],
)  # fmt: skip
def test_the_ways_to_write_csv(tmp_path: Path, text: str, captions: tuple[str, str]) -> None:
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg"), "m.csv": text})
    source = open_source(tmp_path)
    assert captions_of(source) == dict(zip(("a.jpg", "b.jpg"), captions))
    assert ABOVE not in notes_of(source)


@pytest.mark.parametrize("above", ["My paintings\n", "# made by a tool, 2024\n", "# one\n# two\nMy paintings\n"])
@pytest.mark.parametrize("mark", [",", ";"])
def test_lines_above_the_header_are_passed_by_and_counted(tmp_path: Path, above: str, mark: str) -> None:
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg"), "m.csv": above + ROWS.replace(",", mark)})
    source = open_source(tmp_path)
    assert captions_of(source) == {"a.jpg": "a red house", "b.jpg": "a blue boat"}
    assert notes_of(source) == {ABOVE: above.count("\n")}
