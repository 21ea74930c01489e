"""Values that no run can have are refused in a sentence that names the key; what means off is off."""

from __future__ import annotations

import copy
import math
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from diffusion_art.callbacks.checkpoint import RunCheckpoints
from diffusion_art.callbacks.throughput import Throughput
from diffusion_art.config import build, config_dir
from diffusion_art.errors import UserError
from diffusion_art.launching.settle import settle
from diffusion_art.training.build import build_trainer
from diffusion_art.training.optim import Constant, Cosine, WarmupStableDecay, build_optimizer
from diffusion_art.training.run.limits import check_limits
from diffusion_art.training.run.stopping import StepTimer


def _settled(*overrides: str) -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=["data.path=x", "prompts=[red]", "callbacks.progress=null", *overrides])
    return settle(config, Path("logs/x"))


@pytest.fixture(scope="module")
def settings() -> dict:
    return _settled()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("caption_dropout", 2), ("caption_dropout", -0.1), ("seed", -1), ("run", ""), ("memory_limit_gb", 0)),
        *(("guidance_scale", "much"), ("trainer.devices", 0), ("trainer.devices", "two"), ("trainer.devices", [])),
        *(("trainer.accumulate_grad_batches", 0), ("trainer.gradient_clip_val", "abc"), ("trainer.num_nodes", 0)),
        *(("trainer.val_check_interval", 2.5), ("trainer.log_every_n_steps", 1.5), ("optim.lr", math.inf)),
        *(("optim.lr", -0.1), ("optim.weight_decay", -1), ("optim.betas", [0.9, 1.0]), ("sampler.num_steps", 0)),
        *(("lr_schedule.warmup_steps", "long"), ("data.num_workers", -1), ("data.global_batch_size", 0)),
        *(("optim.lr", "abc"), ("data.window", 0), ("data.image_size_px", 0), ("data.val_samples", -1)),
        *(("data.augmentation.horizontal_flip", 2), ("data.augmentation.min_crop", 0)),
        *(("callbacks.checkpoints.every_n_steps", "often"), ("callbacks.checkpoints.keep_last", "some")),
        *(("callbacks.forecast.after_steps", 3), ("callbacks.forecast.after_steps", 0)),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(key, value, settings):
    changed = copy.deepcopy(settings)
    node = changed
    *path, name = key.split(".")
    for part in path:
        node = node[part]
    node[name] = value
    check_limits(settings)
    with pytest.raises(UserError, match=re.escape(f"{key}={value} is out of range")):
        check_limits(changed)


@pytest.mark.parametrize(
    "override",
    [
        *("trainer.max_steps=0", "trainer.max_steps=many", "data.global_batch_size=0", "caption_dropout=2"),
        *("trainer.overfit_batches=1.5", "trainer.overfit_batches=-1", "trainer.limit_train_batches=10"),
        *("trainer.check_val_every_n_epoch=2", "+trainer.min_steps=5", "+trainer.min_epochs=1"),
        *(
            "run=null",
            "name=null",
            "run=/elsewhere",
            "run=../up",
            "name=a/../../b",
            "trainer.limit_val_batches=abc",
            "trainer.limit_val_batches=-1",
        ),
        *("trainer.fast_dev_run=-1", "trainer.precision=bf16-true", "trainer.precision=16-true"),
    ],
)
def test_a_run_is_refused_before_anything_is_built(override):
    with pytest.raises(UserError, match=re.escape(override.lstrip("+"))):
        _settled(override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.accelerator=gpu", ["trainer.accelerator=gpu", "trainer=cpu"]),
        ("trainer.precision=fp16", ["fp16", "bf16-mixed"]),
        ("trainer.strategy=foo", ["foo"]),
        ("+trainer.max_time=soon", ["trainer.max_time=soon", "00:01:30:00"]),
        ("trainer.max_time=3", ["trainer.max_time=3", "00:01:30:00"]),
        ("trainer.accelerator=tpu", ["torch_xla"]),
    ],
)
def test_what_lightning_refuses_is_one_sentence(override, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = _settled("trainer.accelerator=cpu", override)
    with pytest.raises(UserError) as refused:
        build_trainer(settings)
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)


def test_an_optimiser_that_refuses_its_settings_says_where_they_are():
    factory = build({"_target_": "torch.optim.RAdam", "_partial_": True, "lr": 0.1, "betas": [2.0, 0.9]})
    with pytest.raises(UserError, match=r"`optim`.*beta"):
        build_optimizer(factory, nn.Linear(2, 2))


@pytest.mark.parametrize("off", [0, -1, None])
def test_intervals_and_warmups_of_zero_or_less_are_off(off):
    checkpoints = RunCheckpoints(folder="x", every_n_steps=off)
    assert checkpoints.every_n_steps is None
    assert Throughput(every_n_steps=off).every_n_steps is None
    for schedule in (Constant, partial(Cosine, total_steps=9), partial(WarmupStableDecay, total_steps=9)):
        assert schedule(warmup_steps=off)(0) == 1.0
    value = "null" if off is None else off
    trainer = build_trainer(_settled("trainer.accelerator=cpu", f"trainer.val_check_interval={value}"))
    assert trainer.limit_val_batches == 0


def test_a_share_as_validation_interval_is_of_the_run():
    settings = _settled("trainer.accelerator=cpu", "trainer.val_check_interval=0.25", "trainer.max_steps=40")
    assert build_trainer(settings).val_check_interval == 10


def test_several_devices_are_shared_by_ddp_where_nothing_else_is_asked_for():
    assert _settled("trainer.devices=2")["trainer"]["strategy"] == "ddp"
    assert _settled("trainer.devices=1")["trainer"]["strategy"] == "auto"
    assert _settled("trainer=fsdp", "trainer.devices=2")["trainer"]["strategy"] != "ddp"


def test_max_time_is_looked_at_between_steps():
    settings = _settled("trainer.accelerator=cpu", "+trainer.max_time=00:00:00:01")
    assert any(isinstance(callback, StepTimer) for callback in build_trainer(settings).callbacks)


def test_no_mixed_precision_by_the_word_of_accelerate_is_full_precision():
    assert _settled("trainer.precision=no")["trainer"]["precision"] == "32-true"


def test_no_prompts_are_none():
    settings = _settled("prompts=null")
    assert settings["prompts"] == settings["callbacks"]["samples"]["prompts"] == []


def test_a_time_alone_gives_a_run_no_length():
    with pytest.raises(UserError, match=r"gives the run no end\. .*trainer\.max_time=00:01:00:00 may end it before"):
        _settled("trainer.max_steps=-1", "trainer.max_time=00:01:00:00")


THEIRS = "+callbacks.mine._target_=lightning.pytorch.callbacks.ModelCheckpoint"


def test_lightnings_own_checkpoints_lie_in_the_run_folder():
    (mine,) = (each for each in build_trainer(_settled(THEIRS)).callbacks if isinstance(each, ModelCheckpoint))
    assert mine.dirpath == str(Path("logs/x/checkpoints").absolute())
    (mine,) = (
        each
        for each in build_trainer(_settled(THEIRS, "+callbacks.mine.dirpath=/elsewhere")).callbacks
        if isinstance(each, ModelCheckpoint)
    )
    assert mine.dirpath == "/elsewhere"


def test_two_callbacks_do_not_write_one_last_checkpoint():
    """Lightning's would write through the link, into the file of an earlier step."""
    both = (THEIRS, "+callbacks.mine.save_last=true")
    with pytest.raises(UserError, match=r"callbacks\.mine\.save_last=true would write last\.ckpt"):
        build_trainer(_settled(*both))
    build_trainer(_settled(*both, "callbacks.checkpoints=null"))
