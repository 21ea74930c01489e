"""`sources/lists.py`: two lists that go together line by line. The others stand in test_collections.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.sources.collection import ORPHAN_TEXTS
from diffusion_art.sources.detect import open_source
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
