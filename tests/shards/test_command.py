"""The command `python -m diffusion_art.shards`, as people run it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.shards.__main__ import shards
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.mixture import open_shards
from diffusion_art.shards.reader import ShardSet
from diffusion_art.shards.telling import describe, preview
from diffusion_art.sheets import read_metadata
from diffusion_art.sources.base import LeftOut
from tests.fakes_buckets import bucketed_shards
from tests.fakes_sources import Told
from tests.shards.toy import write_toy
from tests.sources.hostile import write_hostile_tar


def settings(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("shards", overrides=["progress=false", *overrides])


def test_info_lint_and_preview_of_a_folder(painter_shards: Path, run_here, tmp_path: Path):
    status, said, complaints = run_here("shards", "info", f"path={painter_shards}")
    assert (status, complaints) == (0, "")
    for word in ("painter", "train", "val", "16 px", ShardSet.open(painter_shards).digest):
        assert word in said, word
    status, said, _ = run_here("shards", f"path={painter_shards}", "lint", "out=report.json", "workers=1")
    assert status == 0, said
    assert "150 samples in 2 files" in said
    assert "0 errors, 0 warnings" in said
    assert json.loads((tmp_path / "report.json").read_text())["samples"] == 150
    status, said, _ = run_here("shards", "preview", f"path={painter_shards}", "count=6")
    assert status == 0, said
    sheet = next(tmp_path.glob("painter*-preview.png"))
    assert len(json.loads(read_metadata(sheet)["captions"])) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == [sheet.name, "report.json"]


def test_info_tells_of_the_sizes_in_buckets(run_here, tmp_path: Path):
    manifest = bucketed_shards(tmp_path / "shards")
    status, said, _ = run_here("shards", "info", "path=shards", "out=info.json")
    assert status == 0
    counts = manifest.buckets["train"].counts
    assert f"pictures of train by size: {', '.join(f'{name} {count}' for name, count in counts.items())}" in said
    (folder,) = json.loads((tmp_path / "info.json").read_text())["folders"]
    assert folder["splits"]["train"]["buckets"] == counts


def test_info_and_preview_tell_of_captions_splits_and_counts(run_here, tmp_path: Path):
    def item(number: int):
        if number < 4:
            return [LeftOut(str(number), "pictures of a test split")]
        more = {"captions": ("red", "blue")} if number % 2 else {}
        return {"split": "val" if number > 20 else "train", **more}

    build_shards(Told(30, item), tmp_path / "told", image_size_px=16, progress=False, workers=1)
    status, said, _ = run_here("shards", "info", "path=told", "out=info.json")
    assert status == 0
    for line in (
        "the validation split is the one that the source names; val_fraction is not used",
        "13 pictures have several captions; one is drawn at each visit",
        "4 pictures of a test split, left out",
        "2 files with the suffix .heic, left out",
        "columns: height, title, width",
    ):
        assert line in said, line
    (folder,) = json.loads((tmp_path / "info.json").read_text())["folders"]
    assert {split: counts["several_captions"] for split, counts in folder["splits"].items()} == {"train": 8, "val": 5}
    assert folder["counts"]["left_out"] == {"files with the suffix .heic": 2, "pictures of a test split": 4}
    sheet = preview(tmp_path / "told", count=17, out=tmp_path / "sheet.png")
    assert json.loads(read_metadata(sheet)["captions"]).count("red | blue") == 8
    spec = [{"path": str(tmp_path / "told"), "caption_template": "{title} in {caption}"}]
    sheet = preview(spec, count=17, out=tmp_path / "other.png")
    assert any("in red | Swatch" in caption for caption in json.loads(read_metadata(sheet)["captions"]))


def test_lint_of_bad_shards_ends_with_status_1(painter_shards: Path, run_here, tmp_path: Path):
    folder = Path(shutil.copytree(painter_shards, tmp_path / "bad"))
    with (folder / "train-000000.tar").open("r+b") as file:
        file.seek(700)
        file.write(b"\x1b[2J")  # would clear the screen of who reads the report, were it printed
    (folder / "stray\x1b[2J").write_text("")
    status, said, complaints = run_here("shards", "lint", "path=bad", "workers=1", "progress=false")
    assert (status, complaints) == (1, "")
    assert "ERROR: the file is not the one its manifest describes, 1 time" in said
    assert "warning: a file that belongs to no split, 1 time" in said
    assert "bad/stray?[2J" in said
    assert "\x1b[2J" not in said


def test_lint_judges_tars_of_others(run_here, tmp_path: Path):
    (tmp_path / "tars").mkdir()
    write_hostile_tar(tmp_path / "tars" / "a.tar", canary=tmp_path / "canary", secret=tmp_path / "secret")
    status, said, _ = run_here("shards", "lint", "path=tars", "progress=false")
    assert status == 1
    assert "ERROR: a member that other readers would run as code, 5 times" in said
    assert [path.name for path in tmp_path.iterdir()] == ["tars"]


def test_a_mixture_is_described_with_its_shares(tmp_path: Path, capsys):
    for seed, name in enumerate(("one", "two")):
        write_toy(tmp_path / name, seed=seed)
    spec = f"path=[{{path:{tmp_path / 'one'},weight:3}},{{path:{tmp_path / 'two'},weight:1}}]"
    shards(settings("action=info", spec, f"out={tmp_path / 'info.json'}"))
    assert "75.0 %" in capsys.readouterr().out
    content = json.loads((tmp_path / "info.json").read_text())
    assert [folder["share"] for folder in content["folders"]] == [0.75, 0.25]
    assert content["splits"] == {"train": 200, "val": 20}
    assert content["folders"][1]["splits"]["train"]["shards"] == 4
    pool = describe(open_shards([tmp_path / "one", tmp_path / "two"]))
    assert [folder["share"] for folder in pool["folders"]] == [0.5, 0.5]


def test_a_preview_shows_what_a_run_would_see_first(painter_shards: Path, tmp_path: Path):
    found = open_shards(painter_shards)
    for seed in (0, 7, None):
        sheet = preview(painter_shards, split="train", count=5, seed=seed, out=tmp_path / f"{seed}.png")
        story = read_metadata(sheet)
        numbers = found.samples("train", seed, 0, 0, 5).tolist()
        assert json.loads(story["captions"]) == [found.captions("train", i)[0] for i in numbers]
        assert json.loads(story["keys"]) == [found.key("train", i) for i in numbers]
    with Image.open(tmp_path / "0.png") as one, Image.open(tmp_path / "7.png") as other:
        assert one.tobytes() != other.tobytes()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["path=x"], "one of lint, info, preview"),
        (["action=burn", "path=x"], "one of lint, info, preview"),
        (["action=info"], r"`path` has no value"),
        (["action=info", "path=nowhere"], "no shard folder nowhere"),
        (["action=preview", "path=TOY", "split=test"], "no pictures in split 'test', but 100 in train"),
        (["action=preview", "path=TOY", "count=0"], "count=0 does not fit"),
        (["action=preview", "path=TOY", "out=x.png"], "none of 32 pictures of toy-0 can be read"),
    ],
)
def test_mistakes_are_one_sentence(toy_folder: Path, overrides: list[str], says: str, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        shards(settings(*(word.replace("TOY", str(toy_folder)) for word in overrides)))
    assert not list(tmp_path.glob("*.png"))


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose pictures are random bytes."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder)
    return folder
