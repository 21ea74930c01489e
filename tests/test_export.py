from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion_art import load_run
from diffusion_art.checkpoints import checkpoint_id, find_checkpoint, load_text_to_image, read_checkpoint
from diffusion_art.diffusion.samplers.dpm_solver import UniPC
from diffusion_art.errors import UserError
from diffusion_art.exported import read_exported
from diffusion_art.record import KEY
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, toy_run, write_checkpoint

PRIVATE = {"path": "/home/someone/art", "url": None, "token": "secret", "ca": None, "cache": None}
RECORDS = "diffusion_art.sources.folder.records.Records"


@pytest.fixture
def run(tmp_path):
    return toy_run(tmp_path / "logs" / "toy" / "first")


def test_an_exported_model_paints_what_its_run_paints(run, run_here):
    status, said, complaints = run_here("export", f"run={run}")
    assert status == 0, said + complaints
    (file,) = run.glob("*.safetensors")
    assert file.name == "first_step_00000005.safetensors"
    assert str(file) in said
    ours, theirs = load_run(file), load_run(run)
    assert torch.equal(ours(["red", "blue"], seed=3), theirs(["red", "blue"], seed=3))
    assert ours.sampler() == theirs.sampler()
    assert (ours.name, theirs.name) == ("first_step_00000005", "toy/first")
    assert (ours.step, ours.prompts, ours.guidance_scale()) == (5, ["red", "blue"], 2.0)
    assert ours.checkpoint_id == theirs.checkpoint_id
    assert file.stat().st_mode & 0o777 == 0o644


def test_raw_weights_and_half_precision(run, run_here, tmp_path):
    small = tmp_path / "to" / "small.safetensors"
    status, said, complaints = run_here("export", f"run={run}", "weights=raw", "dtype=bf16", f"path={small}")
    assert status == 0, said + complaints
    written = load_file(small)
    for name, weight in toy_model().trainable_state().items():
        assert torch.equal(written[name], weight.bfloat16())
    loaded = load_text_to_image(small)
    assert all(weight.dtype == torch.float32 for weight in loaded.trainable_state().values())
    assert load_run(small, weights="raw").model.image_size_px == 16
    assert checkpoint_id(small) == f"{checkpoint_id(find_checkpoint(run))}-bf16"
    again = tmp_path / "again.safetensors"
    assert run_here("export", f"run={small}", f"path={again}")[0] == 0
    assert all(torch.equal(weight, written[name].float()) for name, weight in load_file(again).items())


def test_a_file_with_another_sampler_paints_with_it(run, run_here):
    assert run_here("export", f"run={run}", "sampler=unipc", "num_steps=4")[0] == 0
    (file,) = run.glob("*.safetensors")
    assert load_run(file).sampler() == UniPC(num_steps=4)
    assert load_run(run).sampler() != UniPC(num_steps=4)


def test_where_things_lay_stays_at_home(tmp_path, run_here):
    config = {
        "model": MODEL_CONFIG,
        "sampler": SAMPLER_CONFIG,
        "guidance_scale": 2.0,
        "prompts": ["red"],
        "paths": {"log_dir": "/home/someone/logs"},
        "logger": {"api_key": "secret"},
        "data": {
            "source": {"_target_": RECORDS, "path": "/home/someone/a.csv", "images": "/home/someone", "name": "mine"},
            "remote": {"cache": "/home/someone/cache", "connections": 16},
            **PRIVATE,
        },
    }
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", toy_model(), config=config)
    assert run_here("export", f"run={checkpoint}")[0] == 0
    file = tmp_path / "a.safetensors"
    assert b"someone" not in file.read_bytes()
    assert b"secret" not in file.read_bytes()
    told = read_exported(file)[KEY]["config"]
    assert told["data"] == {"source": {"_target_": RECORDS, "name": "mine"}, "remote": {"connections": 16}}


def test_a_path_is_checked_before_the_model_is_looked_for(run_here, tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / "file").touch()
    for words, said in (
        (("path=model.safetensors",), "path=model.safetensors is a folder: give the name of a file"),
        (("path=file", "format=onnx"), "path=file is a file, and format=onnx writes a folder: give another."),
    ):
        status, _, complaints = run_here("export", "run=nowhere", *words)
        assert status == 1
        assert said in complaints


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["dtype=int8"], "dtype=int8 is not known: choose one of fp32, bf16, fp16."),
        (["format=gguf"], "format=gguf is not known: choose one of file, diffusers, onnx."),
        (["path=model.bin"], "path=model.bin must end in .safetensors."),
        (["path=/dev/null/model.safetensors"], "cannot be written: /dev/null is no folder that you may write to."),
        (["format=diffusers", "path=/dev/null/x"], "cannot be written: /dev/null is no folder"),
        (["weights=best"], "weights=best are not in"),
        (["checkpoint=step_7"], "has no checkpoint named 'step_7'; it has"),
    ],
)
def test_what_cannot_be_exported_is_said(run, run_here, words, complaint):
    status, _, complaints = run_here("export", f"run={run}", *words)
    assert status == 1
    assert complaint in complaints
    assert not list(run.glob("*.safetensors"))


def test_weights_too_large_for_half_precision_are_not_written(tmp_path, run_here):
    model = toy_model()
    with torch.no_grad():
        next(model.backbone.parameters()).fill_(1e6)
    checkpoint = write_checkpoint(tmp_path / "a.ckpt", model)
    status, _, complaints = run_here("export", f"run={checkpoint}", "dtype=float16")
    assert status == 1
    assert "is not finite in fp16: export it with dtype=fp32." in complaints


def test_other_files_are_refused(run, run_here, tmp_path):
    assert run_here("export", f"run={run}")[0] == 0
    (file,) = run.glob("*.safetensors")
    short = tmp_path / "short.safetensors"
    short.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"short\.safetensors cannot be read as a model"):
        load_text_to_image(short)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(UserError, match="was not exported by diffusion_art"):
        load_text_to_image(foreign)
    with pytest.raises(UserError, match="there is no checkpoint at"):
        read_checkpoint(tmp_path / "nothing.safetensors")


def test_a_run_does_not_go_on_from_an_exported_model(run, run_here):
    assert run_here("export", f"run={run}")[0] == 0
    (file,) = run.glob("*.safetensors")
    status, _, complaints = run_here("train", "+experiment=quickstart32", "+debug=tiny", f"ckpt_path={file}")
    assert status == 1
    assert "it cannot be resumed" in complaints
