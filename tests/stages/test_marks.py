"""Stages that are done are skipped; what changed, and all after it, is done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.stages.marks import Marks, Stage


def chain(folder: Path, *, size: int = 16) -> list[Stage]:
    return [
        Stage("shards", "prepare", (f"image_size_px={size}",), folder / "shards"),
        Stage("train", "train", ("run=a",)),
        Stage("export", "export", ("run=a",)),
    ]


def done_by(folder: Path, stages: list[Stage], *, until: int = 3) -> list[str]:
    """The names of the stages that this call did."""
    did: list[str] = []

    def do(stage: Stage) -> None:
        did.append(stage.name)
        if stage.makes is not None:
            stage.makes.mkdir(parents=True, exist_ok=True)

    marks = Marks(folder / "marks", stages)
    for stage in stages[:until]:
        marks.run(stage, do)
    return did


def test_a_chain_goes_on_where_it_was_stopped(tmp_path):
    assert done_by(tmp_path, chain(tmp_path), until=2) == ["shards", "train"]
    assert done_by(tmp_path, chain(tmp_path)) == ["export"]
    assert done_by(tmp_path, chain(tmp_path)) == []


def test_what_changed_and_all_after_it_is_done_again(tmp_path):
    done_by(tmp_path, chain(tmp_path))
    assert done_by(tmp_path, chain(tmp_path, size=32)) == ["shards", "train", "export"]
    (tmp_path / "shards").rmdir()
    assert done_by(tmp_path, chain(tmp_path, size=32), until=1) == ["shards"]
    assert done_by(tmp_path, chain(tmp_path, size=32)) == ["train", "export"]  # they were of the shards before


def test_a_stage_that_fails_leaves_no_mark(tmp_path):
    stages = chain(tmp_path)
    with pytest.raises(RuntimeError):
        Marks(tmp_path / "marks", stages).run(stages[0], lambda stage: (_ for _ in ()).throw(RuntimeError("no")))
    assert not Marks(tmp_path / "marks", stages).is_done(stages[0])
    (tmp_path / "marks").mkdir(exist_ok=True)
    (tmp_path / "marks" / "train.json").write_text("{half")
    assert done_by(tmp_path, stages) == ["shards", "train", "export"]
