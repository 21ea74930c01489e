"""`sources/tables/lists.py`: two lists that go together line by line. The others stand in test_collections.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from diffusion_art.sources.folder.collection import ORPHAN_TEXTS
from diffusion_art.sources.paths.splits import TEST_SPLIT
from tests.fakes_sources import captions_of, jpegs, write_files


@pytest.mark.parametrize("name", ["prompts.txt", "prompt.txt", "captions.txt"])
def test_a_list_of_pictures_and_one_of_captions(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, jpegs("images/a.jpg", "images/b.jpg"))
    write_files(tmp_path, {"images.txt": "images/b.jpg\nimages/a.jpg\n", name: "a blue boat\na red house\n\n"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"images/a.jpg": "a red house", "images/b.jpg": "a blue boat"}
    assert ORPHAN_TEXTS not in source.left_out()


@pytest.mark.parametrize("captions", ["one\n", "one\ntwo\nthree\n"])
def test_lists_of_different_lengths_do_not_go_together(tmp_path: Path, captions: str) -> None:
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg"), "images.txt": "a.jpg\nb.jpg\n", "prompts.txt": captions})
    source = open_source(tmp_path)
    assert captions_of(source) == {"a.jpg": "", "b.jpg": ""}
    assert source.left_out() == {ORPHAN_TEXTS: 2}


def test_a_split_by_the_numbers_of_a_list(tmp_path: Path) -> None:
    """CUB-200-2011: test pictures are not trained on."""
    names = ("001.Albatross/a.jpg", "001.Albatross/b.jpg", "002.Gull/c.jpg")
    write_files(tmp_path, jpegs(*(f"images/{name}" for name in names)))
    numbered = "".join(f"{number} {name}\n" for number, name in enumerate(names, 1))
    write_files(tmp_path, {"images.txt": numbered, "train_test_split.txt": "1 1\n2 0\n3 1\n"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"images/001.Albatross/a.jpg": "Albatross", "images/002.Gull/c.jpg": "Gull"}
    assert source.left_out()[TEST_SPLIT] == 1
