"""The command `python -m diffusion_art.prepare`, as people run it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from diffusion_art.config import build, config_dir
from diffusion_art.errors import UserError
from diffusion_art.prepare import main
from diffusion_art.shards.reader import ShardSet
from diffusion_art.sources.base import Source
from tests.fakes_sources import encoded, picture, wikiart_folder
from tests.sources.tars.test_tars import sample, write_tar


def test_a_folder_of_parquet_files_becomes_shards(tmp_path: Path, run_command) -> None:
    wikiart_folder(tmp_path / "wikiart", count=20)
    arguments = ("source=wikiart", "source.path=wikiart", "image_size_px=16", "fit=letterbox")
    done = run_command("prepare", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "40 pictures of 16 px" in done.stdout
    begun = done.stdout.splitlines()[0]
    assert begun.startswith("A picture that is not square is kept whole, on a white square (fit=letterbox).")
    assert "python -m diffusion_art.shards preview path=data/look" in done.stdout
    shards = ShardSet.open(tmp_path / "data" / "wikiart-16px")
    assert sum(shards.splits.values()) == 40
    again = run_command("prepare", *arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "data/wikiart-16px is ready" in again.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "wikiart"]  # no logs beside


def test_pictures_and_a_template_of_ones_own(tmp_path: Path, run_command) -> None:
    (tmp_path / "mine").mkdir()
    for number in range(3):
        (tmp_path / "mine" / f"{number}.png").write_bytes(encoded(picture(number), "PNG"))
    done = run_command(
        "prepare",
        "source=any",
        "source.path=mine",
        "out=shards",
        "image_size_px=16",
        "val_fraction=0",
        "caption_template='painting {file_name}'",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert ShardSet.open(tmp_path / "shards").read("train", 1).caption == "painting 1.png"


def test_another_build_in_the_way_is_answered_with_whole_commands(tmp_path: Path, run_here) -> None:
    wikiart_folder(tmp_path / "my art", count=4)
    arguments = ("source=any", "source.path='my art'", "image_size_px=16", "workers=1")
    assert run_here("prepare", *arguments)[0] == 0
    status, _, complaint = run_here("prepare", *arguments, "fit=stretch")
    assert status == 1
    assert "Traceback" not in complaint
    beside, over = re.findall(r"`python -m diffusion_art\.prepare (.*?)`", complaint)
    assert shlex.split(over) == [*arguments, "fit=stretch", "out=data/my-art-16px", "overwrite=true"]
    assert run_here("prepare", *shlex.split(beside))[0] == 0
    assert run_here("prepare", *shlex.split(over))[0] == 0
    built = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert re.fullmatch("my-art-16px my-art-16px-[0-9a-f]{6}", " ".join(built))
    assert ShardSet.open(tmp_path / "data" / built[0]).digest == ShardSet.open(tmp_path / "data" / built[1]).digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["source=parquet", "source.path=nowhere"], "there is no nowhere"),
        (["source=painter", "image_size=16"], "no config key `image_size`; did you mean `image_size_px`"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, run_command, arguments: list[str], message: str) -> None:
    done = run_command("prepare", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def compose_prepare(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("prepare", overrides=list(overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source=parquet"], "`source.path` has no value"),
        (
            ["source=painter", "image_size_px=three"],
            "image_size_px=three is out of range. Give a whole number",
        ),
        (["source=painter", "jpeg_quality=92.5"], "jpeg_quality=92.5"),
        (["source=painter", "val_fraction=half"], "val_fraction=half is out of range. Give a number"),
        (["source=painter", "max_bad=null"], "max_bad=None"),
        (["source=painter", "fit=cover"], "fit=cover is not a way to fit a picture"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, monkeypatch, overrides: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        main.task(compose_prepare(*overrides))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", sorted(path.stem for path in (config_dir() / "source").glob("*.yaml")))
def test_every_source_yaml_builds(tmp_path: Path, monkeypatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    wikiart_folder(tmp_path / "parquet", count=1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jpg").write_bytes(encoded(picture(0)))
    (tmp_path / "webdataset").mkdir()
    write_tar(tmp_path / "webdataset" / "a.tar", sample(0))
    (tmp_path / "folder" / "table.csv").write_text("file,caption\na.jpg,x\n")
    (tmp_path / "folder" / "table.json").write_text('{"a.jpg": "x"}')
    places = {"wikiart": "parquet", "any": "folder", "csv": "folder/table.csv", "json": "folder/table.json"}
    overrides = [] if kind == "painter" else [f"source.path={places.get(kind, kind)}"]
    source = build(compose_prepare(f"source={kind}", *overrides).source)
    assert isinstance(source, Source)
    assert any(True for chunk in source.chunks())
