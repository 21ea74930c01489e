"""Distillation by the real command, from a toy teacher: what the run becomes, resuming, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_art.checkpoints import checkpoint_id, find_checkpoint, load_text_to_image
from diffusion_art.diffusion.samplers.consistency import Consistency
from diffusion_art.record import KEY
from diffusion_art.runs import load_run
from tests.fakes import toy_model, toy_run, write_checkpoint


@pytest.fixture
def distill(painter_shards, tmp_path) -> list[str]:
    """The command, short of run=NAME: four steps on 16 px pictures."""
    return [
        "+experiment=distill",
        f"teacher.run={toy_run(tmp_path / 'teacher')}",
        *("data.source=null", f"data.path={painter_shards}", "data.image_size_px=16", "data.url=shards"),
        *("data.num_workers=0", "data.global_batch_size=8", "data.val_samples=8", "objective.teacher_steps=2"),
        *("trainer.max_steps=4", "trainer.val_check_interval=4", "callbacks.checkpoints.every_n_steps=2"),
        *("callbacks.samples=null", "callbacks.progress=null", "callbacks.loss_plot=null"),
    ]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(find_checkpoint(run), weights_only=True)
    return {f"raw {name}": value for name, value in saved["state_dict"].items()} | {
        f"ema {name}": value for name, value in saved[KEY]["ema"].items()
    }


def test_a_student_starts_as_its_teacher_and_says_how_it_is_sampled(distill, run_here, tmp_path):
    status, said, complaints = run_here("train", *distill, "run=still", "optim.lr=0.0")
    assert status == 0, said + complaints
    teacher, student = tmp_path / "teacher", tmp_path / "logs" / "distill" / "still"
    averaged = load_text_to_image(teacher).trainable_state()
    weights = weights_of(student)
    assert len(weights) == 2 * len(averaged)  # no copy of the teacher
    for name, value in averaged.items():
        torch.testing.assert_close(weights[f"ema {name}"], value)
        assert torch.equal(weights[f"raw model.{name}"], value)
    ours = torch.load(find_checkpoint(student), weights_only=True)[KEY]
    assert ours["terms"]["teacher"]["id"] == checkpoint_id(find_checkpoint(teacher))
    assert ours["config"]["teacher"]["run"] == str(find_checkpoint(teacher))
    assert ours["config"]["teacher"]["guidance_scale"] == 2.0  # as the toy run ships

    run = load_run(student)
    assert run.sampler() == Consistency(num_steps=4)
    assert run.guidance_scale() == 1.0
    one, four = run(["red"], num_steps=1), run(["red"])
    assert one.shape == four.shape == (1, 3, 16, 16)
    assert not torch.equal(one, four)


@pytest.mark.slow
def test_a_student_learns_from_its_teacher_and_resumes_exactly(distill, run_here, tmp_path):
    settings = [*distill, "lr_schedule=constant"]
    assert run_here("train", *settings, "run=whole")[0] == 0
    assert run_here("train", *settings, "run=cut", "trainer.max_steps=2")[0] == 0
    status, said, complaints = run_here("train", *settings, "run=cut", "ckpt_path=last")
    assert status == 0, said + complaints
    whole, cut = (weights_of(tmp_path / "logs" / "distill" / name) for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    teacher = load_text_to_image(tmp_path / "teacher").trainable_state()
    assert any(not torch.equal(whole[f"raw model.{name}"], value) for name, value in teacher.items())

    write_checkpoint(tmp_path / "other.ckpt", toy_model(seed=1))
    other = [f"teacher.run={tmp_path / 'other.ckpt'}", "trainer.max_steps=6", "ckpt_path=last"]
    status, _, complaints = run_here("train", *settings, "run=cut", *other)
    assert status == 1
    assert "was taught by step_00000005-" in complaints


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["teacher.run=???"], ["`teacher.run` has no value", "teacher.run="]),
        (["teacher.run=nowhere"], ["there is no run at nowhere"]),
        (["teacher=nowhere"], ["`teacher` is a section with the keys `run`, `guidance_scale`", "teacher.run=..."]),
        (["+teacher_guidance_scale=2"], ["`teacher_guidance_scale` is called `teacher.guidance_scale` now"]),
        (["data.image_size_px=32"], ["data.image_size_px=16", "data.image_size_px=32"]),
        (["model/codec=pixel"], ["codec.Unshuffle2", "codec.Pixel", "Drop that override"]),
        (["model/schedule=flow", "model.schedule.shift=3"], ["model.schedule.shift=3"]),
        (["objective.gap=0"], ["objective.gap=0"]),
    ],
)
def test_a_mistake_gets_one_sentence(distill, run_here, arguments, words):
    status, said, complaints = run_here("train", *distill, *arguments)
    assert status == 1, said + complaints
    assert "Traceback" not in said + complaints
    errors = [line for line in complaints.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, complaints
    for word in words:
        assert word in errors[0]
