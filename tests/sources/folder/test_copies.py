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
    write_files(tmp_path, jpegs("images/a.jpg", "images/b.jpg"))
    write_files(tmp_path, jpegs("thumbs/a.jpg", "thumbs/b.jpg", "images/a_thumb.jpg", width=4, height=4))
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
        ("images/Cubism/1.jpg images/Rococo/1.jpg masks/Cubism/1.png", "masks/Cubism/1.png"),
        ("Cubism/1.jpg Rococo/1.jpg masks/Rococo/1.png Cubism/mask/1.png", "Cubism/mask/1.png masks/Rococo/1.png"),
        ("images/a.jpg resized/a.jpg resized/a.txt", ""),  # people resize, and write captions there
        ("a.jpg a_thumb.jpg a_thumb.jpg.txt", ""),
        ("images/a.jpg images/a_mask.jpg captions/a_mask.txt", ""),
        ("thumb/1.jpg index/1.jpg pinky/1.jpg", ""),  # classes of fingers
        ("train/thumbs/1.jpg train/images/1.jpg val/images/1.jpg", "train/thumbs/1.jpg"),
        ("death.jpg death_mask.jpg life.jpg love.jpg", ""),  # no masks of the others
    ],
)
def test_what_is_a_copy(tmp_path: Path, files: str, copies: str) -> None:
    listing = list_files(write_files(tmp_path, dict.fromkeys(files.split(), "x")))
    assert sorted(small_copies(listing)) == copies.split()


def test_larger_files_are_no_small_copies(tmp_path: Path) -> None:
    listing = list_files(write_files(tmp_path, {"tom.jpg": "x", "tom_thumb.jpg": "xx"}))
    assert not small_copies(listing)


def test_a_table_may_tell_of_the_pictures_or_of_the_copies_or_of_both(tmp_path: Path) -> None:
    """What it tells of both is no copy."""
    write_files(tmp_path, {**jpegs("images/1.jpg"), **jpegs("thumbs/1.jpg", width=4, height=4)})
    write_files(tmp_path, {"metadata.csv": "file_name,caption\nthumbs/1.jpg,a boat\n"})
    assert captions_of(open_source(tmp_path)) == {"images/1.jpg": "a boat"}
    write_files(tmp_path, {"metadata.csv": "file_name,caption\nthumbs/1.jpg,Tom Thumb\nimages/1.jpg,a boat\n"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"images/1.jpg": "a boat", "thumbs/1.jpg": "Tom Thumb"}
    assert not source.left_out()
