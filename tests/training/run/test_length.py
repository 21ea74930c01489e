"""A length is a length: whatever says how long a run is, all that depends on it follows."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from diffusion_art.config import build, config_dir
from diffusion_art.errors import UserError
from diffusion_art.launching.settle import settle
from diffusion_art.shards.mixture import open_shards
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.training.build import build_trainer
from diffusion_art.training.run.length import settled_steps


def _settled(tmp_path: Path, *overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=["+experiment=quickstart32", "+debug=tiny", "data.source=null", *overrides])
    return settle(config, tmp_path)


@pytest.mark.parametrize(
    ("trainer", "typed", "steps"),
    [
        ({"max_steps": 7, "max_epochs": -1}, [], 7),
        ({"max_steps": 7}, [], 7),
        ({"max_steps": -1, "max_epochs": 2}, ["trainer.max_steps", "trainer.max_epochs"], 26),  # 2 x 103 / 8 = 25.75
        ({"max_steps": None, "max_epochs": 0.5}, [], 7),
        ({"max_steps": 7, "max_epochs": 2}, [], 7),
        ({"max_steps": 70, "max_epochs": 2}, [], 26),
        ({"max_steps": 7, "max_epochs": 2}, ["trainer.max_epochs"], 26),
        ({"max_steps": 7, "max_epochs": 2}, ["trainer.max_epochs", "trainer.max_steps"], 7),
    ],
)
def test_the_shorter_limit_counts_unless_only_epochs_were_typed(trainer, typed, steps):
    settled, said = settled_steps(trainer, typed=typed, per_step=8, pictures=lambda: 103)
    assert settled == steps
    assert (said is None) == ((trainer.get("max_epochs") or -1) < 0)


@pytest.mark.parametrize("trainer", [{"max_steps": -1}, {"max_steps": 0}, {"max_steps": "long"}, {"max_steps": 2.5}])
def test_a_run_without_a_length_is_refused(trainer):
    with pytest.raises(UserError, match=r"trainer\.max_steps=.*trainer\.max_epochs=N"):
        settled_steps(trainer, typed=[], per_step=8, pictures=lambda: 103)


@pytest.mark.parametrize("value", [math.inf, math.nan, True, "all"])
@pytest.mark.parametrize("name", ["max_steps", "max_epochs"])
def test_a_length_that_is_no_number_is_refused(name, value):
    with pytest.raises(UserError, match=f"trainer.{name}={value} is not a number of {name[4:]}"):
        settled_steps({"max_steps": 7, name: value}, typed=[], per_step=8, pictures=lambda: 103)


def test_schedules_alignment_and_curricula_follow_the_epochs(painter_shards, tmp_path):
    asked = [f"data.path={painter_shards}", "trainer.max_steps=-1", "trainer.max_epochs=3"]
    asked += ["trainer.accumulate_grad_batches=2"]
    settings = _settled(tmp_path, *asked)
    pictures = open_shards(painter_shards).splits["train"]
    steps = -(-3 * pictures // 16)
    assert settings["trainer"]["max_steps"] == steps
    assert settings["lr_schedule"]["total_steps"] == settings["alignment"]["total_steps"] == steps
    schedule = build(settings["lr_schedule"])
    rates = [schedule(step) for step in range(steps)]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.05 < 0.4 < rates[steps // 2] < 0.7
    stable = build(_settled(tmp_path, *asked, "lr_schedule=wsd")["lr_schedule"])
    assert 0 < stable(steps - 1) < stable(steps // 2) == 1.0


def test_a_server_is_asked_how_many_pictures_there_are(painter_shards, tmp_path):
    with ServerProcess(painter_shards) as server:
        settings = _settled(tmp_path, f"data.url={server.url}", "trainer.max_steps=-1", "trainer.max_epochs=1")
    assert settings["trainer"]["max_steps"] == -(-open_shards(painter_shards).splits["train"] // 8)


def test_a_fast_dev_run_is_a_few_steps_that_leave_nothing(tmp_path):
    settings = _settled(tmp_path, "data.path=x", "prompts=[red]", "trainer.fast_dev_run=2")
    assert settings["trainer"]["max_steps"] == settings["lr_schedule"]["total_steps"] == 2
    assert settings["logger"] == {}
    assert "checkpoints" not in settings["callbacks"]
    trainer = build_trainer(settings)
    assert trainer.checkpoint_callbacks == []
    assert trainer.loggers == []
    assert (trainer.max_steps, trainer.limit_val_batches, trainer.val_check_interval) == (2, 2, 2)
