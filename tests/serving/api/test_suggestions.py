from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_art.captions.captioner import ART_TEMPLATE
from diffusion_art.runs import Run, load_run
from diffusion_art.serving.api.suggestions import of_prompt, shard_folders, suggest
from diffusion_art.shards.reader import ShardSet
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, write_checkpoint


def run_of(folder: Path, **config) -> Run:
    config = {"model": MODEL_CONFIG, "sampler": SAMPLER_CONFIG, **config}
    return load_run(write_checkpoint(folder / "checkpoints" / "step_00000001.ckpt", toy_model(), config=config))


def test_words_of_the_training_set(tmp_path, painter_shards):
    found = suggest(run_of(tmp_path, data={"path": str(painter_shards)}, prompts=["red"]))
    shards = ShardSet.open(painter_shards)
    pictures = [shards.metadata("train", i) for i in range(shards.splits["train"])]
    assert set(found.artists) == {picture["artist"] for picture in pictures}
    assert set(found.styles) == {picture["style"] for picture in pictures}
    assert set(found.genres) == {picture["genre"] for picture in pictures}
    counts = [sum(picture["style"] == style for picture in pictures) for style in found.styles]
    assert counts == sorted(counts, reverse=True)
    dates = sorted(int(picture["date"]) for picture in pictures)
    assert found.years == [dates[0], dates[-1]]
    assert (found.template, found.prompts) == (ART_TEMPLATE, ["red"])


def test_several_folders_and_those_that_are_gone(tmp_path, painter_shards):
    paths = [{"path": str(painter_shards), "weight": 1}, {"path": str(tmp_path / "gone"), "weight": 1}]
    run = run_of(tmp_path / "run", data={"path": paths})
    assert list(shard_folders(run)) == [painter_shards]
    assert suggest(run).artists


def test_a_relative_path_is_looked_for_above_the_run(tmp_path, painter_shards, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").symlink_to(painter_shards)
    run = run_of(tmp_path / "logs" / "toy" / "one", data={"path": "data/mine"})
    monkeypatch.chdir("/")
    assert list(shard_folders(run)) == [tmp_path / "data" / "mine"]


@pytest.mark.parametrize("data", [None, {}, {"path": None}, {"path": []}, {"path": "nowhere"}, {"path": "."}])
def test_the_runs_prompts_stand_in(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompts = ["Paul Klee / Senecio / Expressionism / portrait / c.1922", "a red house"]
    found = suggest(run_of(tmp_path, data=data, prompts=prompts))
    assert (found.artists, found.titles, found.styles, found.genres, found.years) == (
        ["Paul Klee"],
        ["Senecio"],
        ["Expressionism"],
        ["portrait"],
        [1922, 1922],
    )
    assert found.prompts == prompts


def test_a_run_with_neither(tmp_path):
    found = suggest(run_of(tmp_path))
    assert found.prompts == found.artists == found.years == []


@pytest.mark.parametrize(
    ("prompt", "template", "expected"),
    [
        ("a / b", "{artist} / {title}", {"artist": "a", "title": "b"}),
        ("a / b / c", "{artist} / {title}", {}),
        ("a by b, c", "{title} by {artist}, {date}", {}),
        ("a", "{title}", {}),
    ],
)
def test_prompts_taken_apart(prompt, template, expected):
    assert of_prompt(prompt, template) == expected


def test_looking_does_not_load_the_model(tmp_path):
    run = run_of(tmp_path)
    suggest(run)
    assert "model" not in vars(run)
    assert torch.is_grad_enabled()
