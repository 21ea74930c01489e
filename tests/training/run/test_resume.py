"""Where in a run a checkpoint of before stands, how it is named, and what is said when one cannot be written."""

from __future__ import annotations

import copy
import errno
import re
from pathlib import Path

import pytest
import torch

from diffusion_art.errors import UserError
from diffusion_art.record import KEY
from diffusion_art.training.processes.sharded import FoldersToo
from diffusion_art.training.run.resume import changed, place_loops, resume_from
from tests.fakes import MODEL_CONFIG, toy_model, toy_run, write_checkpoint


@pytest.mark.parametrize("parts", [1, 4])
def test_a_file_that_does_not_name_its_batches_to_a_step_is_resumed_with_as_many(parts):
    """With fewer a run waited for ever, with more it saw pictures again."""
    progress = {"total": {"completed": 6, "processed": 6}}
    loops = {"fit_loop": {"epoch_loop.batch_progress": progress}}
    saved = {"global_step": 3, "loops": loops, "StreamDataModule": {"cursor": 6}}
    told = "the checkpoint was trained with trainer.accumulate_grad_batches=2, this run has "
    with pytest.raises(UserError, match=re.escape(f"{told}{parts}")):
        place_loops(saved, batches_per_step=parts, validates=lambda batches: False)
    assert loops["fit_loop"]["epoch_loop.batch_progress"] is progress
    place_loops(saved, batches_per_step=2, validates=lambda batches: False)
    assert loops["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"] == 6


@pytest.fixture
def run(tmp_path) -> Path:
    return toy_run(tmp_path / "logs/toy/first", steps=(5, 10))


@pytest.mark.parametrize(
    ("asked", "step"),
    [
        *(("latest", 10), ("last", 10), ("auto", 10), ("5", 5), (5, 5), ("step_00000005", 5), ("step_5.ckpt", 5)),
        ("checkpoint-5", 5),
    ],
)
def test_a_checkpoint_of_the_run_is_named_as_other_trainers_name_it(asked, step, run):
    found = resume_from(asked, run)
    assert found is not None
    assert found.resolve() == run / f"checkpoints/step_{step:08d}.ckpt"


def test_a_step_that_the_run_has_not_is_told_with_those_it_has(run, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"first has no checkpoint named '7'; it has .*step_00000005"):
        resume_from("7", run)
    with pytest.raises(UserError, match=r"ckpt_path=7, but .*new holds no checkpoint"):
        resume_from("7", tmp_path / "new")
    run.rename(tmp_path / "7")
    monkeypatch.chdir(tmp_path)
    assert resume_from("7", tmp_path / "new") is not None, "a folder of that name"


def test_settings_that_differ_are_told_and_those_that_cannot_go_on_are_refused(run, monkeypatch):
    checkpoint = run / "checkpoints/last.ckpt"
    before = torch.load(checkpoint, weights_only=True)[KEY]["config"]
    assert changed(checkpoint, copy.deepcopy(before)) is None
    now = copy.deepcopy(before)
    now["model"]["schedule"]["_target_"] = before["model"]["schedule"]["_target_"].replace("diffusion_art.", "once.")
    assert changed(checkpoint, now) is None, "it stands elsewhere now"
    now["model"]["image_size_px"] = 8
    now["model"]["schedule"] = {"_target_": "a.CosineSchedule"}
    now["name"] = "other"
    was = before["model"]["schedule"]["_target_"].rpartition(".")[2]
    told = changed(checkpoint, now)
    assert told is not None
    assert f"model.image_size_px=8 ({before['model']['image_size_px']})" in told
    assert f"model.schedule: CosineSchedule ({was})" in told
    assert "other" not in told.partition(":")[2]
    now["model"]["prediction"] = {"_target_": "a.Another"}
    with pytest.raises(UserError, match="and this run has Another: give model/prediction as it was"):
        changed(checkpoint, now)


class FullDisk:
    """What torch is given to write to: a disk that is full."""

    def write(self, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None: ...


def test_what_follows_from_the_length_of_a_run_is_not_told_and_other_sizes_of_pictures_are(tmp_path):
    before = {"alignment": {"total_steps": 4}, "data": {"curriculum": {"stages": []}, "num_workers": 1}}
    now = {"alignment": {"total_steps": 8}, "data": {"curriculum": {"stages": []}, "num_workers": 2}}
    checkpoint = write_checkpoint(tmp_path / "last.ckpt", toy_model(), config={"model": MODEL_CONFIG, **before})
    assert changed(checkpoint, now) is None
    now["data"]["curriculum"]["stages"] = [{"until": 0.5, "shrink": 2}]
    told = changed(checkpoint, now)
    assert told == "other settings than in the checkpoint: data.curriculum.stages=[{'until': 0.5, 'shrink': 2}] ([])"


def test_another_guidance_of_a_teacher_and_other_pictures_learnt_by_heart_are_told(tmp_path):
    before = {"teacher": {"run": "a.ckpt", "guidance_scale": 2.0}, "trainer": {"overfit_batches": 0}}
    checkpoint = write_checkpoint(tmp_path / "last.ckpt", toy_model(), config={"model": MODEL_CONFIG, **before})
    now = {"teacher": {"run": "moved/a.ckpt", "guidance_scale": 3.0}, "trainer": {"overfit_batches": 1}}
    told = changed(checkpoint, now)
    assert told is not None
    assert told.endswith(": teacher.guidance_scale=3.0 (2.0), trainer.overfit_batches=1 (0)")


def test_another_weight_of_a_term_of_ones_own_is_told(tmp_path):
    own = {"_target_": "diffusion_art.training.terms.perceptual.Perceptual", "weight": 0.1}
    checkpoint = write_checkpoint(tmp_path / "last.ckpt", toy_model(), config={"model": MODEL_CONFIG, "edges": own})
    told = changed(checkpoint, {"edges": own | {"weight": 0.2}, "logger": {"weight": 3}})
    assert told == "other settings than in the checkpoint: edges.weight=0.2 (0.1)"


def test_a_checkpoint_that_a_full_disk_cuts_short_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    save = torch.save
    monkeypatch.setattr(
        "diffusion_art.training.processes.sharded.torch.save", lambda content, file: save(content, FullDisk())
    )
    path = tmp_path / "first/checkpoints/step_00000015.ckpt"
    path.parent.mkdir(parents=True)
    with pytest.raises(UserError) as told:
        FoldersToo().save_checkpoint({"weights": torch.zeros(1000)}, path)
    said = f"{path} cannot be written: No space left on device. Nothing was saved before that; start it again."
    assert str(told.value) == said
    assert not list(path.parent.iterdir())
