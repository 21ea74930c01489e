"""A training on a raw folder says what its captions are, in its log and in its report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fakes_sources import encoded, picture

TINY = (
    "+experiment=openclipart",
    "+debug=tiny",
    "data.num_workers=0",
    "data.url=shards",
    "data.image_size_px=16",
    "data.val_fraction=0.2",
    "data.global_batch_size=4",
    "trainer.max_steps=1",
    "data.path=mine",
    "data.build.workers=1",
)


def write(folder: Path) -> None:
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.png").write_bytes(encoded(picture(number), "PNG"))
        if number:
            (folder / f"{number}.txt").write_text(f"one {number}\ntwo {number}\n")


@pytest.mark.slow
def test_a_resume_with_other_pictures_is_refused_before_their_shards_are_built(run_here, tmp_path: Path):
    write(tmp_path / "mine")
    status, said, complaints = run_here("train", *TINY, "run=first")
    assert status == 0, complaints
    assert said.splitlines()[-1] == "paint with it: python -m diffusion_art.sample run=logs/tiny/first"
    write(tmp_path / "other")
    (tmp_path / "other/0.txt").write_text("another\n")
    more = ("run=first", "ckpt_path=last", "trainer.max_steps=2")
    status, _, complaint = run_here("train", *TINY, *more, "data.path=other")
    assert status == 1
    assert "was trained on other pictures, those of data.path=mine, and shards of data.path=other would be" in complaint
    assert [folder.name for folder in (tmp_path / "data").glob("[!.]*") if "other" in folder.name] == []
    shutil.rmtree(tmp_path / "data")  # those of the same pictures are built again
    status, _, complaints = run_here("train", *TINY, *more)
    assert status == 0, complaints


@pytest.mark.slow
def test_pictures_without_a_caption_are_told_of_in_every_run(run_here, tmp_path: Path):
    write(tmp_path / "mine")
    for run in ("first", "second"):
        status, said, complaints = run_here("train", *TINY, f"run={run}")
        assert status == 0, complaints
        folder = tmp_path / "logs" / "tiny" / run
        assert "1 of 20 pictures have no caption" in (folder / "train.log").read_text()
        assert "| pictures without a caption | 1 of 20 |" in (folder / "report.md").read_text()
        assert ("19 pictures have several captions" in said) == (run == "first")  # built once
    for path in (tmp_path / "mine").glob("*.txt"):
        path.unlink()
    status, _, complaint = run_here("train", *TINY, "run=third")
    assert status == 1
    assert "none of 20 pictures has a caption; their columns: file_name. Put a NAME.txt" in complaint
