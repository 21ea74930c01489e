from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import diffusion_art
from diffusion_art.diffusion.samplers.ddim import DDIM
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.errors import UserError
from diffusion_art.runs import load_run
from tests.fakes import toy_model, toy_run


@pytest.fixture
def folder(tmp_path):
    return toy_run(tmp_path / "toy", toy_model(), steps=(5, 10))


def test_a_run_tells_its_config_metrics_and_grids(folder):
    run = diffusion_art.load_run(folder)
    assert run.step == 10
    assert run.config["guidance_scale"] == 2.0
    assert run.prompts == ["red", "blue"]
    assert run.metrics["train/loss"].tolist() == [1.5, 1.25]
    assert run.metrics["val/loss"].isna().tolist() == [True, False]
    assert run.grids == {5: folder / "samples" / "step_00000005.png"}
    assert repr(run) == f"Run({str(folder)!r}, step=10, weights='ema')"


def test_another_checkpoint_of_it_can_be_looked_at(folder):
    assert diffusion_art.load_run(folder, which="step_00000005").step == 5
    assert diffusion_art.load_run(folder / "checkpoints" / "step_00000005.ckpt").path == folder
    assert diffusion_art.load_run(folder.parent).path == folder


def test_caption_following_if_it_was_measured(folder):
    run = diffusion_art.load_run(folder)
    assert run.caption_following is None
    (folder / "caption_following.json").write_text(json.dumps({"style": 0.9}))
    assert run.caption_following == {"style": 0.9}


def test_calling_it_paints_as_its_grids_do(folder):
    run = diffusion_art.load_run(folder)
    images = run(["red", "blue"], seed=4)
    expected = run.model.generate(
        ["red", "blue"], seeds=[4, 5], sampler=Euler(3), guidance_scale=2.0, negative_prompts=["", ""]
    )
    assert torch.equal(images, expected)
    assert run("red").shape == (1, 3, 16, 16)
    assert not torch.equal(run("red"), run("red", num_steps=1))
    assert not torch.equal(run("red"), run("red", guidance_scale=5))
    assert not torch.equal(run("red"), run("red", negative_prompt="blue"))
    assert torch.equal(run("red", sampler=DDIM(3)), run("red", sampler=DDIM(9), num_steps=3))


def test_a_run_without_metrics_says_so(folder):
    (folder / "metrics.csv").unlink()
    with pytest.raises(UserError, match=r"no metrics.csv"):
        _ = diffusion_art.load_run(folder).metrics


def test_the_model_waits_until_it_is_used(folder):
    run = diffusion_art.load_run(folder)
    assert "model" not in vars(run)
    assert run.model is run.model


def test_the_package_knows_its_doors():
    assert {"load_run", "load_text_to_image"} <= set(dir(diffusion_art))
    assert diffusion_art.load_run is load_run
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        _ = diffusion_art.no_such


@pytest.mark.slow
def test_opening_a_run_loads_no_trainer():
    code = (
        "import sys, diffusion_art; assert 'torch' not in sys.modules; diffusion_art.load_run;"
        "assert 'torch' in sys.modules and 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
