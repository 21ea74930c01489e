"""`python -m diffusion_art.evaluate`: figures for a run, and one sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from diffusion_art.cli import config_dir
from diffusion_art.errors import UserError
from diffusion_art.evaluate import evaluate, training_captions
from diffusion_art.evaluation.caption_following import painter_captions
from diffusion_art.sources.painter import Painter
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, toy_run, write_checkpoint

PAINTER = {"_target_": "diffusion_art.sources.painter.Painter", "seed": 3, "count": 64, "image_size_px": 16}
FEW = ["count=6", "held_out_count=4", "batch_size=4", "device=cpu"]


def run(*overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return evaluate(compose("evaluate", list(overrides)))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    config = {
        "model": MODEL_CONFIG,
        "sampler": SAMPLER_CONFIG,
        "guidance_scale": 2.0,
        "data": {"source": PAINTER},
    }
    write_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000005.ckpt", toy_model(), config=config)
    return tmp_path / "run"


def test_figures_are_written_into_the_run_folder(trained: Path):
    result = run(f"run={trained}", *FEW)
    saved = json.loads((trained / "caption_following.json").read_text())
    assert saved == result
    assert (saved["style_count"], saved["palette_count"], saved["held_out_count"]) == (6, 6, 4)
    assert saved["sampler"] == SAMPLER_CONFIG
    assert saved["guidance_scale"] == 2.0


def test_the_same_call_gives_the_same_figures(trained: Path, tmp_path: Path):
    rows = [run(f"run={trained}", f"out={tmp_path / name}", *FEW)["rows"] for name in ("a", "b")]
    assert rows[0] == rows[1]
    assert run(f"run={trained}", f"out={tmp_path / 'c'}", "seed=1", *FEW)["rows"] != rows[0]
    assert not (trained / "caption_following.json").exists()


def test_sampler_steps_and_guidance_can_be_changed(trained: Path):
    result = run(f"run={trained}", "sampler=ddim", "num_steps=2", "guidance_scale=1", *FEW)
    assert (result["sampler"]["name"], result["sampler"]["num_steps"]) == ("ddim", 2)
    assert result["guidance_scale"] == 1


def test_training_captions_come_from_the_run_config():
    captions = training_captions({"data": {"source": PAINTER}})
    assert captions == painter_captions(Painter(seed=3, count=64))
    assert training_captions({"data": {"source": None}}) is None
    assert training_captions({}) is None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([], "run=logs/quickstart"),
        (["run=nowhere/at/all"], "nowhere/at/all"),
        (["judge=sleep"], "judge=sleep"),
        (["run=x", "count=0"], "count=0"),
        (["run=x", "batch_size=-2"], "batch_size=-2"),
    ],
)
def test_mistakes_get_a_sentence_with_the_value(overrides: list[str], told: str):
    with pytest.raises(UserError, match=told):
        run(*overrides)


def test_unknown_device_is_named(trained: Path):
    with pytest.raises(UserError, match="device=abacus"):
        run(f"run={trained}", "device=abacus", *FEW[:3])


def test_the_real_command(tmp_path: Path, run_command):
    folder = toy_run(tmp_path / "run")
    done = run_command("evaluate", f"run={folder}", *FEW, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "caption following: style" in done.stdout
    assert "not trained on the painter" in done.stdout + done.stderr
    assert (folder / "caption_following.json").is_file()
    failed = run_command("evaluate", f"run={tmp_path / 'nothing'}", cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr
