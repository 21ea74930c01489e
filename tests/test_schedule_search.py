from __future__ import annotations

import json

import pytest
from hydra import compose, initialize_config_dir

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.schedule_search import schedule_search
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, toy_run, write_checkpoint
from tests.test_sample import paint


def search(*overrides: str):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("schedule_search", ["device=cpu", "num_steps=3", "fine_steps=8", "pictures=3", *overrides])
    return schedule_search(config)


def test_the_grid_it_writes_paints(tmp_path):
    folder = toy_run(tmp_path / "toy", toy_model())
    found = search(f"run={folder}", "sampler=unipc")
    written = json.loads((folder / "times_unipc_3.json").read_text())
    assert written == found
    assert found["checkpoint"].startswith("step_00000005-")
    assert set(found["rms_error_on_other_noise"]) == {"searched", "uniform", "log_snr", "karras"}
    out = paint(f"run={folder}", "prompts=[red]", "sampler=unipc", f"sampler.times={found['times']}")
    assert (out / "000_red.png").is_file()


def test_the_runs_own_sampler_and_a_wrong_request(tmp_path):
    folder = toy_run(tmp_path / "toy", toy_model())
    assert search(f"run={folder}", f"out={tmp_path / 'grid.json'}")["sampler"] == "euler"
    assert (tmp_path / "grid.json").is_file()
    with pytest.raises(UserError, match="pictures=0 is too small"):
        search(f"run={folder}", "pictures=0")
    with pytest.raises(UserError, match="not for heun"):
        search(f"run={folder}", "sampler=heun")
    with pytest.raises(UserError, match=r"not for ddim with eta=0\.5"):
        search(f"run={folder}", "sampler=ddim", "sampler.eta=0.5")


@pytest.mark.slow
def test_a_run_without_prompts_takes_those_it_is_given(tmp_path):
    config = {"model": MODEL_CONFIG, "sampler": SAMPLER_CONFIG}
    run = f"run={write_checkpoint(tmp_path / 'a.ckpt', toy_model(), config=config)}"
    with pytest.raises(UserError, match="give prompts to paint"):
        search(run)
    errors = [search(run, f"prompts=[{prompt}]")["rms_error_on_other_noise"] for prompt in ("red", "blue")]
    assert errors[0] != errors[1]


def test_what_paints_nothing_is_refused(tmp_path):
    model = {"_target_": "diffusion_art.models.autoencoder.Autoencoder"}
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", toy_model(), config={"model": model})
    with pytest.raises(UserError, match="an autoencoder, which paints nothing by itself"):
        search(f"run={checkpoint}")


def test_the_file_is_never_half_written(tmp_path):
    """What had its name before is left as it was, and lives on where it has another name."""
    folder, out = toy_run(tmp_path / "toy", toy_model()), tmp_path / "grid.json"
    out.write_text("former")
    (tmp_path / "kept.json").hardlink_to(out)
    search(f"run={folder}", f"out={out}")
    assert (tmp_path / "kept.json").read_text() == "former"
    assert "times" in json.loads(out.read_text())
