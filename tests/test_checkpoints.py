from __future__ import annotations

import logging
import os
import pickle
from copy import deepcopy

import pytest
import torch

import diffusion_art
from diffusion_art.checkpoints import checkpoint_id, find_checkpoint, find_run, load_text_to_image, read_checkpoint
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.errors import UserError
from diffusion_art.record import KEY
from tests.fakes import MODEL_CONFIG, tiny_clip, toy_model, toy_run, write_checkpoint


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture
def run(tmp_path, model):
    return toy_run(tmp_path / "logs" / "toy" / "first", model, steps=(5, 10))


# ---------------------------------------------------------------------- a model from a file


def test_three_lines_of_python_paint(run, model):
    loaded = diffusion_art.load_text_to_image(run, weights="raw")
    request = {"prompts": ["red"], "seeds": [3], "sampler": Euler(2)}
    assert torch.equal(loaded.generate(**request), model.generate(**request))
    assert not loaded.training


def test_the_averaged_weights_are_the_default(run, model):
    averaged, raw = load_text_to_image(run), load_text_to_image(run, weights="raw")
    for name, weight in model.trainable_state().items():
        assert torch.equal(raw.trainable_state()[name], weight)
        assert torch.equal(averaged.trainable_state()[name], weight / 2)
    with pytest.raises(UserError, match=r"weights=best are not in .*; it has ema, raw\."):
        load_text_to_image(run, weights="best")


def test_a_loaded_model_outlives_its_file(run):
    loaded = load_text_to_image(run)
    for file in run.glob("checkpoints/*"):
        file.unlink()
    assert torch.isfinite(loaded.generate(["red"], seeds=[0], sampler=Euler(1))).all()


def test_the_frozen_text_tower_is_known_by_its_hash(tmp_path):
    folder = tiny_clip(tmp_path / "clip")
    config = deepcopy(MODEL_CONFIG)
    config["text_encoder"] = {
        "_target_": "diffusion_art.models.text_encoder.OpenClipPretrained",
        "model": f"local-dir:{folder}",
    }
    model = toy_model(text_encoder=config["text_encoder"])
    told = {"config": {"model": config}, "text_encoder": model.text_encoder.describe()}
    file = write_checkpoint(tmp_path / "a.ckpt", model, **told)
    assert load_text_to_image(file).text_encoder.sha256 == model.text_encoder.sha256
    tiny_clip(folder, seed=1)
    with pytest.raises(UserError, match="Give it the same weights"):
        load_text_to_image(file)


# ---------------------------------------------------------------------- files that are not ours


def test_nothing_there(tmp_path):
    for path in (tmp_path / "no.ckpt", tmp_path / "nowhere"):
        with pytest.raises(UserError, match=str(path)):
            load_text_to_image(path)
    with pytest.raises(UserError, match=r"no run with a checkpoint in .*\+experiment=quickstart"):
        load_text_to_image(tmp_path)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model_index.json", "is a pipeline of diffusers, and no run: paint with it by DiffusionPipeline"),
        ("painting.json", "is a model for onnxruntime, and no run: python examples/onnx_paint.py"),
        ("klimt.safetensors", "holds no run, but exported models: give one of these files, such as run="),
        ("manifest.json", "holds shards to train on"),
    ],
)
def test_a_folder_that_is_no_run_is_told_by_what_it_is(file, said, tmp_path):
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=said):
        load_text_to_image(tmp_path)


def test_a_folder_inside_a_run_is_told_from_the_run(run):
    assert find_checkpoint(run / "checkpoints") == find_checkpoint(run)
    (run / "samples").mkdir(exist_ok=True)
    with pytest.raises(UserError, match=f"is a folder inside a run: give the run itself, run={run}$"):
        find_checkpoint(run / "samples")


def test_a_truncated_file_is_named_at_any_length(run):
    file = run / "checkpoints" / "step_00000005.ckpt"
    content = file.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match=f"truncated or no checkpoint \\({length:,} bytes"):
            load_text_to_image(file)


def test_another_programs_checkpoint(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="another program"):
        load_text_to_image(tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(UserError, match="another program"):
        load_text_to_image(tmp_path / "list.ckpt")


def test_another_format(tmp_path, model):
    file = write_checkpoint(tmp_path / "new.ckpt", model, format=7)
    with pytest.raises(UserError, match="format 7, and this version of diffusion_art reads format 1"):
        load_text_to_image(file)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_would_run_code_is_refused_before_it_does(tmp_path, model):
    canary = tmp_path / "canary"
    file = write_checkpoint(tmp_path / "bad.ckpt", model, extra=Canary(canary))
    with pytest.raises(UserError, match="could run code"):
        load_text_to_image(file)
    bare = tmp_path / "bare.ckpt"
    bare.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(UserError, match="no checkpoint"):
        load_text_to_image(bare)
    assert not canary.exists()


@pytest.mark.parametrize("target", ["os.mkdir", "torch.hub.load", "diffusion_art.runs.load_run"])
def test_a_config_that_names_other_code_is_refused(tmp_path, model, target):
    config = {"model": {"_target_": target, "path": str(tmp_path / "canary")}}
    file = write_checkpoint(tmp_path / "bad.ckpt", model, config=config)
    with pytest.raises(UserError, match=r"not on the list|there is no run"):
        load_text_to_image(file)
    assert not (tmp_path / "canary").exists()


def test_weights_that_do_not_fit_their_config(tmp_path):
    config = deepcopy(MODEL_CONFIG)
    config["backbone"]["block_channels"] = [16, 16]
    file = write_checkpoint(tmp_path / "a.ckpt", toy_model(), config={"model": config})
    with pytest.raises(UserError, match="belong to another model"):
        load_text_to_image(file)


# ---------------------------------------------------------------------- finding


def test_last_is_the_newest(run):
    assert find_checkpoint(run).name == "step_00000010.ckpt"
    (run / "checkpoints" / "last.ckpt").unlink()
    assert find_checkpoint(run).name == "step_00000010.ckpt"


def test_last_follows_the_link_also_back_in_time(run):
    link = run / "checkpoints" / "last.ckpt"
    link.unlink()
    link.symlink_to("step_00000005.ckpt")
    assert find_checkpoint(run).name == "step_00000005.ckpt"


def test_a_truncated_last_is_passed_over_and_said(run, caplog):
    newest = run / "checkpoints" / "step_00000010.ckpt"
    newest.write_bytes(newest.read_bytes()[:-30])
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(run).name == "step_00000005.ckpt"
    assert "step_00000010.ckpt is not whole" in caplog.text
    older = run / "checkpoints" / "step_00000005.ckpt"
    older.write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint of .* is whole"):
        find_checkpoint(run)


def test_best_and_names(run):
    assert find_checkpoint(run, which="step_00000005").name == "step_00000005.ckpt"
    with pytest.raises(UserError, match="no checkpoint named 'best'; it has last, step_00000005, step_00000010"):
        find_checkpoint(run, which="best")
    (run / "checkpoints" / "best.ckpt").symlink_to("step_00000005.ckpt")
    assert find_checkpoint(run, which="best").resolve().name == "step_00000005.ckpt"
    with pytest.raises(UserError, match=r"there is no checkpoint at .*step_7\.ckpt\. Its run has .*step_00000005"):
        find_checkpoint(run / "checkpoints/step_7.ckpt")


def test_a_folder_of_runs_means_the_newest(run, model):
    other = toy_run(run.parent.parent / "other" / "second", model)
    os.utime(other / "checkpoints" / "step_00000005.ckpt", (1, 1))
    logs = run.parent.parent
    assert find_run(logs) == run
    assert find_run(run) == run
    assert find_run(run / "checkpoints" / "last.ckpt") == run
    assert find_run(logs / "other") == other


def test_an_id_is_the_step_and_the_content(run, tmp_path):
    file = run / "checkpoints" / "step_00000005.ckpt"
    name, _, digest = checkpoint_id(file).rpartition("-")
    assert name == "step_00000005"
    assert len(digest) == 8
    assert checkpoint_id(run / "checkpoints" / "last.ckpt").startswith("step_00000010-")
    other = write_checkpoint(tmp_path / file.name, toy_model(1))
    assert checkpoint_id(other) != checkpoint_id(file)
    copy = tmp_path / "copy" / file.name
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    assert checkpoint_id(copy) == checkpoint_id(file)


def test_reading_gives_plain_data(run):
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert content[KEY]["config"]["prompts"] == ["red", "blue"]
