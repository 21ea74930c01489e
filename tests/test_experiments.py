"""Every experiment composes, settles and builds; a new yaml is tested by existing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from diffusion_art.cli import config_dir
from diffusion_art.config import allowed, build, targets
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.train import build_trainer, settle
from tests.fakes import toy_run


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def _settled(tmp_path: Path, *overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=["data.path=somewhere", *overrides])
    return settle(config, tmp_path)


@pytest.mark.parametrize("name", _choices("experiment"))
def test_every_experiment_builds(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wanted = {"distill": [f"teacher={toy_run(tmp_path / 'teacher')}", "data.image_size_px=16"]}  # to be complete
    settings = _settled(tmp_path, f"+experiment={name}", *wanted.get(name, []))
    assert settings["name"] == name
    with torch.device("meta"):
        model = build(settings["model"])
        optimizer = build(settings["optim"])([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(model, TextToImage)
    assert model.image_size_px == settings["data"]["image_size_px"]
    assert optimizer.defaults["lr"] == settings["optim"]["lr"]
    build(settings["objective"])
    build(settings["lr_schedule"])
    trainer = build_trainer(settings)
    assert trainer.max_steps == settings["trainer"]["max_steps"]


GROUPS = ["optim", "lr_schedule", "ema", "trainer", "callbacks", "logger", "data", "noise", "objective", "sampler"]


@pytest.mark.parametrize("group", [*GROUPS, "curriculum", "alignment", "perceptual"])
def test_every_choice_of_a_group_composes_and_names_known_classes(group, tmp_path):
    for name in _choices(group):
        if name == "default" and group == "data":
            continue  # what the others build on
        settings = _settled(tmp_path, f"{group}={name}")
        assert all(allowed(target) for target in targets(settings))


def test_the_baseline_has_the_tutorials_knobs(tmp_path):
    settings = _settled(tmp_path, "+experiment=wikiart_eir")
    assert settings["data"]["image_size_px"] == 128
    assert settings["data"]["global_batch_size"] == 128
    assert settings["trainer"]["accumulate_grad_batches"] == 1
    assert settings["data"]["val_samples"] == 1024
    assert settings["trainer"]["max_steps"] == 50_000
    assert settings["trainer"]["gradient_clip_val"] == 1.0
    assert settings["trainer"]["precision"] == "bf16-mixed"
    assert settings["optim"]["_target_"] == "torch.optim.AdamW"
    assert (settings["optim"]["lr"], settings["optim"]["weight_decay"]) == (1e-4, 1e-4)
    assert settings["lr_schedule"]["warmup_steps"] == 2000
    assert settings["lr_schedule"]["patience"] == 16
    assert settings["callbacks"]["early_stopping"]["patience"] == 32
    assert (
        settings["callbacks"]["samples"]["every_n_steps"]
        == settings["callbacks"]["checkpoints"]["every_n_steps"]
        == 1000
    )
    assert settings["sampler"] == {
        "_target_": "diffusion_art.diffusion.samplers.Sampler",
        "name": "ddim",
        "num_steps": 200,
        "spacing": "uniform",
        "times": None,
        "eta": 0.2,
    }
    assert settings["model"]["prediction"]["_target_"].endswith(".V")
    assert settings["model"]["schedule"]["_target_"].endswith(".SquaredCosCapV2")
    assert settings["model"]["schedule"]["zero_terminal_snr"] is True
    assert settings["model"]["schedule"]["num_train_timesteps"] == 1000
    assert settings["compile"] is True
    assert settings["caption_dropout"] == 0.0
    assert settings["ema"]["decay"] == 0.0


def test_wikiart_without_its_data_names_three_ways_to_get_it(run_here, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, said, complaints = run_here("train", "+experiment=wikiart", "+debug=tiny")
    assert status == 1
    assert "Traceback" not in said + complaints
    for way in ("source.path=", "source=wikiart", "data.url=ws://"):
        assert way in complaints
    assert complaints.count("error: ") == 1


def test_wikiart_without_pretrained_weights_says_so_and_trains_a_small_tower(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = _settled(tmp_path, "+experiment=wikiart", "model.text_encoder.pretrained=not-a-tag-that-exists")
    assert settings["model"]["text_encoder"]["_target_"].endswith("OpenClipScratch")
    assert "cannot be reached" in caplog.text


@pytest.mark.parametrize("logger", [pytest.param("wandb", marks=pytest.mark.slow), "tensorboard"])
def test_trackers_work_offline_beside_the_csv(logger, painter_shards, run_command, tmp_path):
    said = run_command(
        "train",
        "+experiment=quickstart",
        "+debug=tiny",
        "data.source=null",
        f"data.path={painter_shards}",
        f"logger={logger}",
        "trainer.max_steps=4",
        "run=tracked",
        cwd=tmp_path,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    run = tmp_path / "logs/tiny/tracked"
    assert (run / "metrics.csv").exists()
    assert list(run.glob("wandb/offline-run-*" if logger == "wandb" else "tensorboard/events.*"))


def test_the_trainer_counts_in_steps_and_logs_short_runs(tmp_path):
    settings = _settled(tmp_path, "+experiment=wikiart", "trainer.max_steps=5", "trainer.accelerator=cpu")
    trainer = build_trainer(settings)
    assert trainer.val_check_interval == 4 * settings["trainer"]["val_check_interval"]  # four batches to a step
    assert trainer.log_every_n_steps == 1
