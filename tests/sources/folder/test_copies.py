"""`sources/folder/copies.py`: thumbnails, resized pictures and masks beside the pictures themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from diffusion_art.sources.folder.copies import COPIES, small_copies
from diffusion_art.sources.paths.listing import list_files
from tests.fakes_sources import captions_of, jpegs, write_files


def test_copies_are_left_out_and_counted(tmp_path: Path) -> None:
    """A table that names `a.jpg` means the picture, not its thumbnail."""
    write_files(tmp_path, jpegs("images/a.jpg", "images/b.jpg", "thumbs/a.jpg", "thumbs/b.jpg", "images/a_thumb.jpg"))
    write_files(tmp_path, {"captions.csv": "file,caption\na.jpg,a house\nb.jpg,a boat\n"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"images/a.jpg": "a house", "images/b.jpg": "a boat"}
    assert source.left_out() == {COPIES: 3}
    assert source.describe()["copies"] == "left out"


@pytest.mark.parametrize(
    ("files", "copies"),
    [
        ("resized/a.jpg resized/b.jpg", ""),
        ("images/a.jpg resized/a.jpg resized/b.jpg", ""),  # b is nowhere else
        ("a-300x200.jpg b_thumb.jpg", ""),
        ("a.jpg a-300x200.jpg a-150x150.png", "a-150x150.png a-300x200.jpg"),
        ("images/Monet/a.jpg resized/resized/a.jpg", "resized/resized/a.jpg"),
        ("images/a.jpg masks/a.png b.jpg b_mask.png", "b_mask.png masks/a.png"),
        ("face/1.jpg mask/1.jpg", ""),  # classes of pictures that are numbered
        ("train/1.jpg train_masks/1.png", "train_masks/1.png"),
        ("images/a.jpg resized/a.jpg resized/a.txt", ""),  # people resize, and write captions there
    ],
)
def test_what_is_a_copy(tmp_path: Path, files: str, copies: str) -> None:
    listing = list_files(write_files(tmp_path, dict.fromkeys(files.split(), "x")))
    assert sorted(small_copies(listing)) == copies.split()
