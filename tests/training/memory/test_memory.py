"""Steps that fit and steps that do not: the batch size that is found, and what is said when memory runs out."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.nn.modules.module import register_module_forward_pre_hook

from diffusion_art.checkpoints import find_checkpoint, read_checkpoint
from diffusion_art.config import config_dir, plain
from diffusion_art.errors import UserError
from diffusion_art.models.unet import UNet
from diffusion_art.record import KEY
from diffusion_art.training.memory.batch_size import find_batch_size, largest, usable_sizes
from diffusion_art.training.memory.out_of_memory import is_out_of_memory, overrides

TINY = ["+experiment=quickstart32", "+debug=tiny", "data.source=null", "data.num_workers=0", "data.url=shards"]
QUIET = ["callbacks.progress=null", "callbacks.samples=null", "callbacks.loss_plot=null"]


# ---------------------------------------------------------------------- the search


@pytest.mark.parametrize("pictures", [1, 7, 96, 128, 1000])
def test_the_largest_is_found_wherever_memory_ends(pictures):
    sizes = usable_sizes(pictures, world=1)
    for end in range(pictures + 2):
        tried: list[int] = []

        def fits(size: int, end: int = end, tried: list[int] = tried) -> bool:
            assert size not in tried
            tried.append(size)
            return size <= end

        assert largest(sizes, fits) == max((size for size in sizes if size <= end), default=None)
        assert len([size for size in tried if size > end]) <= 1 + len(sizes).bit_length()
        assert all(later <= 4 * earlier or later in sizes for earlier, later in pairwise(tried))


def test_sizes_divide_the_share_of_each_process():
    assert usable_sizes(24, world=2) == [1, 2, 3, 4, 6, 12]
    with pytest.raises(UserError, match="24 pictures cannot be shared by 5"):
        usable_sizes(24, world=5)
    assert usable_sizes(96, world=2, block=16) == [16, 48]  # pictures that share their noises stay together
    with pytest.raises(UserError, match=r"noise\.block=16 does not divide the 24 pictures of a step that each process"):
        usable_sizes(48, world=2, block=16)


@pytest.mark.slow
def test_a_run_finds_its_batch_size_and_trains_on_as_many_pictures_a_step(painter_shards, run_here, tmp_path):
    asked = [*TINY, *QUIET, f"data.path={painter_shards}", "find_batch_size=true", "run=found"]
    asked += ["data.global_batch_size=6", "trainer.accumulate_grad_batches=4", "lr_schedule=constant"]
    status, said, complaints = run_here("train", *asked, "trainer.max_steps=3")
    assert status == 0, said + complaints
    assert "data.global_batch_size=24 trainer.accumulate_grad_batches=1, 24 pictures per step as before" in said
    checkpoint = read_checkpoint(find_checkpoint(tmp_path / "logs/tiny/found"))
    assert checkpoint["StreamDataModule"]["cursor"] * 24 == 3 * 24
    assert checkpoint[KEY]["config"]["data"]["global_batch_size"] == 24
    # resumed where less fits, it keeps the batches its place is counted in
    status, said, complaints = run_here("train", *asked, "ckpt_path=last", "memory_limit_gb=0.001")
    assert status == 0, said + complaints
    assert "resumed, so the batch size stays" in said
    assert read_checkpoint(find_checkpoint(tmp_path / "logs/tiny/found"))["StreamDataModule"]["cursor"] == 12
    status, said, complaints = run_here("train", *asked[:-4], "run=none", "memory_limit_gb=0.001")
    assert status == 1
    assert "not even one picture at once fits into 0.001 GB" in complaints


@pytest.mark.slow
def test_what_the_search_refuses_is_told_in_its_words():
    settings = {"data": {"global_batch_size": 2}, "trainer": {"accumulate_grad_batches": 1, "accelerator": "mps"}}
    with pytest.raises(UserError, match="measures CUDA devices and CPUs, not MPS"):
        find_batch_size(settings, world=1)


# ---------------------------------------------------------------------- running out


def test_allocators_are_known_by_their_own_words():
    with pytest.raises(RuntimeError) as ran_out:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(ran_out.value)
    with pytest.raises(MemoryError) as ran_out:
        bytearray(2**60)
    assert is_out_of_memory(ran_out.value)
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(other.value)


def test_a_run_without_memory_ends_with_three_ways_on(painter_shards, run_here, tmp_path):
    calls = 0

    def hook(module: torch.nn.Module, args: tuple) -> None:
        nonlocal calls
        if isinstance(module, UNet) and module.training:
            calls += 1
            if calls == 5:  # of the third step
                torch.empty(2**60, dtype=torch.uint8)

    asked = [*TINY, *QUIET, f"data.path={painter_shards}", "run=large", "callbacks.checkpoints.every_n_steps=2"]
    asked += ["alignment=none"]  # that asks for the middle too, past the hook
    handle = register_module_forward_pre_hook(hook)
    try:
        status, said, complaints = run_here(
            "train", *asked, "trainer.accumulate_grad_batches=2", "trainer.precision=bf16-mixed"
        )
    finally:
        handle.remove()
    assert status == 1, said + complaints
    assert "Traceback" not in said + complaints
    assert complaints.count("error: ") == 1
    for words in (
        "8 pictures of 16 px at once (8 x 2 per step",
        "1. data.global_batch_size=4 trainer.accumulate_grad_batches=4  (16 pictures per step as now, 4 at once)",
        "2. model.backbone.gradient_checkpointing=true",
        "3. 'model.backbone.block_channels=[8,16]'",
        "step_00000002.ckpt is saved",
        "ckpt_path=last",
    ):
        assert words in complaints, complaints


@pytest.mark.parametrize("experiment", ["wikiart", "quickstart32"])
def test_every_experiment_has_three_ways_on_and_each_composes(experiment):
    def composed(*more: str) -> dict:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose("train", overrides=[f"+experiment={experiment}", "paths.run_dir=x", *more])
        return plain(config)

    settings = composed()
    before = settings["data"]["global_batch_size"] * settings["trainer"]["accumulate_grad_batches"]
    offers = overrides(settings, world=1)
    assert len(offers) == 3
    for override, _ in offers:
        changed = composed(*override.replace("'", "").split())
        assert changed != settings
        assert changed["data"]["global_batch_size"] * changed["trainer"]["accumulate_grad_batches"] == before


def test_one_picture_at_once_is_not_halved(tmp_path):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        settings = plain(compose("train", overrides=["+experiment=quickstart32", "paths.run_dir=x"]))
    single = copy.deepcopy(settings)
    single["data"]["global_batch_size"] = 2
    assert not any("global_batch_size" in override for override, _ in overrides(single, world=2))
    assert overrides(single, world=1)[0][0] == "data.global_batch_size=1 trainer.accumulate_grad_batches=2"
