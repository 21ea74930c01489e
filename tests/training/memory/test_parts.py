"""In how many parts a step is taken, by the memory that is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_art.checkpoints import find_checkpoint, read_checkpoint
from diffusion_art.config import config_dir, shipped
from diffusion_art.errors import UserError
from diffusion_art.launching.batches import settle_batch_size
from diffusion_art.launching.settle import settle
from diffusion_art.training.memory.parts import fitting_part, kept_bytes
from tests.fakes import JIT_CONFIG, MODEL_CONFIG


def settled(tmp_path, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return settle(compose("train", overrides=overrides), tmp_path)


def parts(settings: dict[str, Any], *, world: int = 1) -> tuple[int, int]:
    settle_batch_size(settings, checkpoint=None, world=world)
    return settings["data"]["global_batch_size"], settings["trainer"]["accumulate_grad_batches"]


@pytest.mark.parametrize(
    ("memory_gb", "wanted"),
    [(38, (128, 1)), (22, (64, 2)), (11.5, (32, 4))],  # 40, 24 and 12 GB cards
)
def test_wikiart_takes_its_128_pictures_in_as_few_parts_as_fit(memory_gb, wanted, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = ["trainer.precision=bf16-mixed", f"memory_limit_gb={memory_gb}"]
    settings = settled(tmp_path, "+experiment=wikiart", *asked)
    assert settings["find_batch_size"] == "auto"
    assert parts(settings) == wanted
    assert settings["find_batch_size"] is False  # the config of the run says what was settled


def test_what_a_picture_keeps_does_not_hang_on_the_batch_and_checkpointing_saves_it(tmp_path):
    asked = ["+experiment=quickstart32", "+debug=tiny"]
    fixed, kept = kept_bytes(settled(tmp_path, *asked)["model"])
    less = kept_bytes(settled(tmp_path, *asked, "model.backbone.gradient_checkpointing=true")["model"])
    twice = ["data.image_size_px=32", "model.backbone.attention_sides=[8]"]
    larger = kept_bytes(settled(tmp_path, *asked, *twice)["model"])
    assert fixed > 0
    assert less[0] == fixed == larger[0]
    assert less[1] < kept / 2
    assert 2.5 * kept < larger[1] < 5 * kept


def test_noises_that_are_shared_in_blocks_stay_whole():
    noise = shipped("noise/assigned") | {"block": 4}
    settings = {
        "data": {"global_batch_size": 24},
        "trainer": {"precision": 32},
        "model": MODEL_CONFIG | {"backbone": JIT_CONFIG},
        "noise": noise,
    }
    assert fitting_part(settings, limit=1, world=1)[0] == 4


def test_parts_are_never_larger_than_asked_for(tmp_path):
    asked = ["+experiment=quickstart32", "+debug=tiny", "find_batch_size=auto"]
    small = ["data.global_batch_size=4", "trainer.accumulate_grad_batches=2"]
    assert parts(settled(tmp_path, *asked, *small, "memory_limit_gb=100")) == (4, 2)
    if not torch.cuda.is_available():
        assert parts(settled(tmp_path, *asked)) == (8, 1)  # a CPU takes what it is given
    with pytest.raises(UserError, match="find_batch_size=yes"):
        parts(settled(tmp_path, *asked[:2], "find_batch_size='yes'"))


@pytest.mark.slow
def test_a_run_records_its_parts_and_keeps_them_when_it_is_resumed(painter_shards, run_here, tmp_path):
    tiny = ["+experiment=quickstart32", "+debug=tiny", "data.source=null", f"data.path={painter_shards}"]
    tiny += ["data.num_workers=0", "data.url=shards", "callbacks.progress=null", "callbacks.samples=null"]
    tiny += ["callbacks.loss_plot=null", "find_batch_size=auto", "run=split", "lr_schedule=constant"]
    tiny += ["trainer.val_check_interval=2", "data.val_samples=8"]
    fixed, kept = kept_bytes(settled(tmp_path, *tiny)["model"])
    limit = f"memory_limit_gb={(fixed + 5 * kept) / 1e9}"  # for bf16 too
    status, said, complaints = run_here("train", *tiny, limit, "trainer.max_steps=2")
    assert status == 0, said + complaints
    assert "8 pictures per step in 2 part(s): data.global_batch_size=4" in said
    run = tmp_path / "logs" / "tiny" / "split"
    recorded = OmegaConf.load(run / "config.yaml")
    assert (recorded.data.global_batch_size, recorded.trainer.accumulate_grad_batches) == (4, 2)
    assert read_checkpoint(find_checkpoint(run))["StreamDataModule"]["cursor"] == 4
    more = ["trainer.max_steps=4", "ckpt_path=last", "memory_limit_gb=100"]
    status, said, complaints = run_here("train", *tiny, *more)
    assert status == 0, said + complaints
    assert "resumed, so the batch size stays" in said
    assert read_checkpoint(find_checkpoint(run))["StreamDataModule"]["cursor"] == 8
    status, said, complaints = run_here("train", *tiny, *more, "trainer.max_steps=6", "data.global_batch_size=16")
    assert status == 1
    assert "trained with data.global_batch_size=4" in complaints


def test_processes_that_others_started_settle_alike(tmp_path, monkeypatch):
    asked = ["+experiment=quickstart32", "+debug=tiny", "find_batch_size=auto", "memory_limit_gb=100"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert parts(settled(tmp_path, *asked), world=2) == (8, 1)
    fixed, kept = kept_bytes(settled(tmp_path, *asked)["model"])
    assert fitting_part(settled(tmp_path, *asked), limit=fixed + 3 * kept, world=2)[0] == 2
    assert fitting_part(settled(tmp_path, *asked), limit=0, world=4)[0] == 1
    with pytest.raises(UserError, match="find_batch_size=auto, which measures nothing"):
        parts(settled(tmp_path, *asked, "find_batch_size=true"))
