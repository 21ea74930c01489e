"""What a run is compared with: the painter's fresh pictures, or the shards that `real` names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion_art.errors import UserError
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.reference import PainterPictures, ShardPictures
from diffusion_art.shards.manifest import Manifest
from tests.evaluation.measured import PAINTER

CONFIG = {"model": {"image_size_px": 16}, "data": {"source": PAINTER}}


def test_a_run_of_the_painter_is_compared_with_fresh_paintings():
    data = RunData(CONFIG)
    real, kept = data.real(), data.kept()
    assert isinstance(real, PainterPictures)
    assert isinstance(kept, PainterPictures)
    assert not torch.equal(real.reference(4).images, kept.reference(4).images)


def test_shards_that_are_named_replace_fresh_paintings(painter_shards: Path):
    """As they do for a run on any other pictures."""
    data = RunData(CONFIG, real=str(painter_shards))
    splits = Manifest.load(painter_shards).splits
    real, kept = data.real(), data.kept()
    assert isinstance(real, ShardPictures)
    assert isinstance(kept, ShardPictures)
    assert (real.split, real.there, kept.split, kept.there) == ("train", splits["train"], "val", splits["val"])
    other = RunData({"model": {"image_size_px": 16}, "data": {"source": None}}, real=str(painter_shards))
    assert (real.digest, kept.digest) == (other.real().digest, other.kept().digest)
    assert real.reference(4).captions == other.real().reference(4).captions


def test_runs_that_differ_in_their_seed_are_compared_with_the_same_pictures(painter_shards: Path):
    config = {"model": {"image_size_px": 16}, "data": {"source": None, "path": str(painter_shards)}}
    runs = [RunData(config | {"data": config["data"] | {"seed": seed}}) for seed in (0, 7)]
    assert len({run.real().digest for run in runs}) == 1


def test_an_exported_model_is_told_to_name_no_pictures():
    with pytest.raises(UserError, match="an exported model tells no pictures' place: give real=FOLDER"):
        RunData({"model": {"image_size_px": 16}, "data": {"source": None, "image_size_px": 16}}).real()


def test_a_folder_that_is_not_there_is_told_by_the_key_that_named_it():
    with pytest.raises(UserError, match="there is no data at real=nix"):
        RunData(CONFIG, real="nix").real()
    with pytest.raises(UserError, match=r"no data at data\.path=nix, on which the run was trained: .*give real=FOLDER"):
        RunData({**CONFIG, "data": {"path": "nix"}}).real()


def test_pictures_without_captions_are_told_of_by_what_evaluate_can_take(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bare").mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 0, 0)).save(f"bare/{number}.png")
    said = r"none of 4 pictures has a caption; their columns: file_name; pictures are painted from the captions of "
    shards = r"python -m diffusion_art\.prepare source=any source\.path=bare image_size_px=16 out=SHARDS "
    with pytest.raises(UserError, match=f"{said}.* Put a NAME.txt .*: {shards}allow_no_captions=true$"):
        RunData(CONFIG, real="bare").real()
    Path("bare/0.png").rename("bare/a red square.png")
    for number in range(1, 4):
        Path(f"bare/{number}.png").rename(f"bare/red square {number}.png")
    with pytest.raises(UserError, match=f"{shards}'caption_template={{stem}}'$"):
        RunData(CONFIG, real="bare").real()
