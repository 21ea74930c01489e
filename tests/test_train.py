"""The real command: run folders, kills and resumes, several processes, sweeps, and what it says to mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from diffusion_art.checkpoints import load_text_to_image
from diffusion_art.record import KEY
from diffusion_art.reports.training import TrainingReport
from diffusion_art.runs import load_run
from diffusion_art.shards.build.build import build_shards
from diffusion_art.sources.painter import Painter
from diffusion_art.training.build import build_datamodule
from diffusion_art.training.module import DiffusionModule
from diffusion_art.watching.folder import RunFolder
from tests.commands import COMMON, Command
from tests.fakes import tiny_clip
from tests.reports.test_report import Page, assert_equals_metrics
from tests.training.run.test_run_folder import _holder

TINY = ["+experiment=quickstart32", "+debug=tiny", "data.source=null", "callbacks.progress=null"]


@pytest.fixture
def tiny(painter_shards) -> list[str]:
    return [*TINY, f"data.path={painter_shards}"]


def _weights(run: Path) -> dict[str, torch.Tensor]:
    """Everything that training changes, by name, from a run's newest checkpoint."""
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    found = {f"raw {name}": value for name, value in saved["state_dict"].items()}
    found |= {f"ema {name}": value for name, value in saved[KEY]["ema"].items()}
    aligned = saved[KEY]["terms"].get("alignment", {"weights": {}})["weights"]
    found |= {f"alignment {name}": value for name, value in aligned.items()}
    for index, state in saved["optimizer_states"][0]["state"].items():
        found |= {f"adam {index} {name}": torch.as_tensor(value) for name, value in state.items()}
    return found


def _assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ: {different[:5]}"


def _start(arguments: list[str], cwd: Path) -> subprocess.Popen:
    return Command(
        [sys.executable, "-m", "diffusion_art.train", *arguments],
        cwd=cwd,
        env={**os.environ, **COMMON},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for(condition, process: subprocess.Popen, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


# ---------------------------------------------------------------------- a run


@pytest.mark.slow
def test_a_run_explains_itself(tiny, run_command, tmp_path):
    said = run_command("train", *tiny, "run=first", cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    run = tmp_path / "logs" / "tiny" / "first"
    for name in ("config.yaml", "train.log", "metrics.csv", "loss.png", "report.md", "report.html"):
        assert (run / name).stat().st_size > 0, name
    grids = sorted(path.name for path in (run / "samples").glob("*.png"))
    assert grids == ["step_00000000.png", "step_00000006.png", "step_00000012.png"]
    with Image.open(run / "samples" / grids[-1]) as grid:
        assert grid.size[0] > 100
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics["train/loss"].notna().sum() == metrics["train/lr"].notna().sum() == 12
    assert metrics["val/loss"].notna().sum() == 2
    assert metrics["images_seen"].max() == 12 * 8
    page = Page(run / "report.html")
    assert_equals_metrics(page, metrics)
    assert [picture["data-step"] for picture in page.pictures] == ["0", "6", "12"]
    assert "finished at step 12 of 12" in page.text
    assert "-m diffusion_art.train +experiment=quickstart32 +debug=tiny" in page.text
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved[KEY]["config"]["model"]["backbone"]["block_channels"] == [16, 32]
    assert saved["StreamDataModule"]["cursor"] == 12
    assert load_text_to_image(run).image_size_px == 16


@pytest.mark.slow
def test_sample_grids_and_their_reports_leave_training_untouched(tiny, run_here, tmp_path, monkeypatch):
    write, states = TrainingReport.write, []

    def written(self: TrainingReport, title: str, **told: Any) -> None:
        write(self, title, **told)
        assert (self.run / "report.html").is_file()
        states.append(told["state"].partition(",")[0])

    monkeypatch.setattr(TrainingReport, "write", written)
    for name, extra in (("with", ["callbacks.samples.every_n_steps=1"]), ("without", ["callbacks.samples=null"])):
        status, said, complaints = run_here("train", *tiny, f"run={name}", *extra)
        assert status == 0, said + complaints
    runs = tmp_path / "logs" / "tiny"
    assert len(list((runs / "with" / "samples").glob("*.png"))) == 13
    steps = [f"running at step {step} of 12" for step in range(13)]
    assert states == [*steps, "finished at step 12 of 12", "finished at step 12 of 12"]
    _assert_equal(_weights(runs / "with"), _weights(runs / "without"))


@pytest.mark.slow
def test_a_clipping_limit_of_zero_or_less_is_off_and_grids_are_of_ones_own_prompts(tiny, run_here, tmp_path):
    asked = ["trainer.max_steps=2", "data.num_workers=0", "data.url=shards", 'prompts=["a red house","a blue house"]']
    for limit in ("null", "0", "-1"):
        status, said, complaints = run_here(
            "train", *tiny, *asked, f"trainer.gradient_clip_val={limit}", f"run=clip{limit}"
        )
        assert status == 0, said + complaints
    runs = tmp_path / "logs/tiny"
    for limit in ("0", "-1"):
        _assert_equal(_weights(runs / f"clip{limit}"), _weights(runs / "clipnull"))
    grid = json.loads((runs / "clip0/samples/step_00000002.json").read_text())
    assert grid["prompts"] == ["a red house", "a blue house"]


# ---------------------------------------------------------------------- kills and resumes


@pytest.mark.slow
def test_edm_immiscible_noise_and_a_grid_of_times_make_a_run_that_paints(tiny, run_here, tmp_path):
    """What a run was told about noise, preconditioning, times and guidance is what its grids and callers paint by."""
    status, said, complaints = run_here(
        "train",
        *tiny,
        *("run=maths", "trainer.max_steps=2", "data.val_samples=8", "data.num_workers=0"),
        *("objective=edm", "model/prediction=edm", "noise=assigned", "noise.block=4"),
        *("sampler=unipc", "sampler.times=[1,0.6,0.2,0]", "guidance.interval=[0.1,0.9]", "guidance.threshold=0.9"),
    )
    assert status == 0, said + complaints
    run = load_run(tmp_path / "logs/tiny/maths")
    asked = json.loads((run.path / "samples/step_00000002.json").read_text())
    assert asked["sampler"] == run.sampler().describe()
    assert asked["sampler"]["times"] == [1.0, 0.6, 0.2, 0.0]
    assert asked["guidance"] == {"interval": [0.1, 0.9], "rescale": 0.0, "threshold": 0.9}
    assert run.model.prediction.sigma_data == 0.5
    assert torch.isfinite(run.sample(["a red square"])).all()


@pytest.mark.slow
def test_killed_twice_and_resumed_with_other_workers_ends_in_the_same_bits(tiny, run_command, tmp_path):
    long = [
        *tiny,
        "trainer.max_steps=48",
        "trainer.val_check_interval=15",
        "callbacks.samples.every_n_steps=24",
    ]
    said = run_command("train", *long, "run=whole", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    broken = [*long, "run=broken"]
    checkpoints = tmp_path / "logs" / "tiny" / "broken" / "checkpoints"

    def newest() -> int:
        return max((int(path.stem[5:]) for path in checkpoints.glob("step_*.ckpt")), default=0)

    for until, extra in ((9, ["data.num_workers=1"]), (27, ["data.num_workers=2", "ckpt_path=last"])):
        process = _start([*broken, *extra], tmp_path)
        _wait_for(lambda until=until: newest() >= until, process)
        time.sleep(0.11)  # somewhere between two checkpoints
        process.kill()
        process.communicate()
        assert 0 < newest() < 48
    said = run_command("train", *broken, "data.num_workers=0", "ckpt_path=last", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    _assert_equal(_weights(tmp_path / "logs/tiny/whole"), _weights(tmp_path / "logs/tiny/broken"))
    losses = [pd.read_csv(tmp_path / f"logs/tiny/{name}/metrics.csv") for name in ("whole", "broken")]
    assert losses[0]["train/loss"].tolist() == losses[1]["train/loss"].tolist()
    assert losses[0]["val/loss"].dropna().tolist() == losses[1]["val/loss"].dropna().tolist()


@pytest.mark.slow
@pytest.mark.longest
def test_an_alignment_outlives_a_kill(tiny, run_command, tmp_path):
    """Killed while it is on, and resumed to its end and beyond."""
    settings = [
        *tiny,
        "alignment=features",
        "alignment.stop_at_fraction=0.6",
        "callbacks.samples=null",
        "data.num_workers=0",
    ]
    settings += ["trainer.max_steps=40"]
    said = run_command("train", *settings, "run=whole", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    process = _start([*settings, "run=broken"], tmp_path)
    checkpoints = tmp_path / "logs/tiny/broken/checkpoints"
    _wait_for(lambda: any(checkpoints.glob("step_*.ckpt")), process)
    process.kill()
    process.communicate()
    assert max(int(path.stem[5:]) for path in checkpoints.glob("step_*.ckpt")) < 24
    said = run_command("train", *settings, "run=broken", "ckpt_path=last", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    _assert_equal(_weights(tmp_path / "logs/tiny/whole"), _weights(tmp_path / "logs/tiny/broken"))


@pytest.mark.slow
def test_a_server_killed_mid_run_changes_nothing(tiny, run_command, tmp_path):
    long = [*tiny, "trainer.max_steps=54", "callbacks.samples=null", "callbacks.loss_plot=null"]
    said = run_command("train", *long, "run=calm", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    process = _start([*long, "run=stormy"], tmp_path)
    checkpoints = tmp_path / "logs/tiny/stormy/checkpoints"
    killed = 0
    for step in (9, 24, 39):
        _wait_for(lambda step=step: any(int(p.stem[5:]) >= step for p in checkpoints.glob("step_*.ckpt")), process)
        for child in psutil.Process(process.pid).children(recursive=True):
            if "diffusion_art.streaming" in " ".join(child.cmdline()):
                child.kill()
                killed += 1
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert killed >= 2
    _assert_equal(_weights(tmp_path / "logs/tiny/calm"), _weights(tmp_path / "logs/tiny/stormy"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(tiny, run_command, tmp_path, number):
    process = _start(
        [*tiny, "trainer.max_steps=2000", "run=asked", "callbacks.checkpoints.every_n_steps=1000"], tmp_path
    )
    metrics = tmp_path / "logs/tiny/asked/metrics.csv"
    _wait_for(metrics.exists, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert "ckpt_path=" in output
    saved = torch.load(tmp_path / "logs/tiny/asked/checkpoints/last.ckpt", weights_only=True)
    assert 0 < saved["global_step"] < 2000
    assert saved["StreamDataModule"]["cursor"] == saved["global_step"]
    assert children
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_accumulated_steps_resume_exactly(tiny, run_command, tmp_path):
    settings = [*tiny, "trainer.accumulate_grad_batches=2", "callbacks.samples=null"]
    settings += ["lr_schedule=constant", "alignment=none"]  # either would end with trainer.max_steps
    for arguments in (["run=whole"], ["run=cut", "trainer.max_steps=6"]):
        said = run_command("train", *settings, *arguments, cwd=tmp_path)
        assert said.returncode == 0, said.stderr
    said = run_command("train", *settings, "run=cut", "ckpt_path=last", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    metrics = pd.read_csv(tmp_path / "logs/tiny/whole/metrics.csv")
    assert metrics.dropna(subset="val/loss")["step"].tolist() == [5, 11]  # every 6 steps, not every 6 batches
    _assert_equal(_weights(tmp_path / "logs/tiny/whole"), _weights(tmp_path / "logs/tiny/cut"))


@pytest.mark.slow
def test_a_curriculum_resumes_exactly_across_its_border(tiny, run_here, tmp_path):
    """8 px until step 6, then 16 px; two batches to a step, prefetched by one worker, then two, then none."""
    settings = [*tiny, "curriculum=progressive", "trainer.accumulate_grad_batches=2", "callbacks.samples=null"]
    settings += ["callbacks.checkpoints.every_n_steps=5", "callbacks.checkpoints.keep_last=-1"]
    status, said, complaints = run_here("train", *settings, "run=whole")
    assert status == 0, said + complaints
    runs = tmp_path / "logs" / "tiny"
    sizes = pd.read_csv(runs / "whole" / "metrics.csv").set_index("step")["image_size_px"]
    assert sizes[[3, 5, 7, 11]].tolist() == [8, 8, 16, 16]
    for step, workers in ((5, 2), (10, 0)):
        again = [f"run=from_{step}", f"ckpt_path={runs}/whole/checkpoints/step_{step:08d}.ckpt"]
        assert run_here("train", *settings, *again, f"data.num_workers={workers}")[0] == 0
        _assert_equal(_weights(runs / "whole"), _weights(runs / f"from_{step}"))


# ---------------------------------------------------------------------- several processes, several runs


@pytest.mark.slow
@pytest.mark.longest
def test_two_processes_train_what_one_does(tiny, run_command, tmp_path):
    settings = [
        *tiny,
        "trainer.max_steps=20",
        "trainer.precision=32-true",
        "optim=adamw",  # Muon's bfloat16 makes steps out of differences in rounding
        "optim.lr=1e-4",  # the baseline's
        *("noise=assigned", "noise.block=4"),
        "alignment=none",  # its relation is between the pictures of one process
        "callbacks.checkpoints.every_n_steps=20",
    ]
    said = run_command("train", *settings, "run=one", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    said = run_command("train", *settings, "run=two", "trainer=ddp", "trainer.devices=2", cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    one, two = (_weights(tmp_path / "logs/tiny" / name) for name in ("one", "two"))
    for name in one:
        if not name.startswith("adam"):
            torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    assert [path.name for path in (tmp_path / "logs/tiny").iterdir() if path.name not in ("one", "two")] == []


@pytest.mark.slow
@pytest.mark.longest
def test_two_processes_align_as_one_does_and_train_on_without(tiny, run_command, tmp_path):
    """Without the relation of pictures, which is that of each process's own."""
    settings = [
        *tiny,
        *(
            "trainer.max_steps=12",
            "trainer.precision=32-true",
            "optim=adamw",
            "optim.lr=1e-4",
            "callbacks.samples=null",
        ),
        *("alignment=open_clip", f"alignment.tower.model=local-dir:{tiny_clip(tmp_path / 'clip')}"),
        *("alignment.tower.pretrained=null", "alignment.similarity_weight=0", "alignment.stop_at_fraction=0.5"),
    ]
    for name, extra in (("one", []), ("two", ["trainer=ddp", "trainer.devices=2"])):
        said = run_command("train", *settings, f"run={name}", *extra, cwd=tmp_path)
        assert said.returncode == 0, said.stdout + said.stderr
    one, two = (_weights(tmp_path / "logs/tiny" / name) for name in ("one", "two"))
    for name in one:
        if name.startswith(("raw", "ema")):
            torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["-m", "model/schedule=cosine,flow"], ["+sweep=schedules"]])
def test_a_sweep_makes_a_run_of_each(tiny, run_command, tmp_path, arguments):
    said = run_command("train", *tiny, "trainer.max_steps=4", "trainer.val_check_interval=4", *arguments, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    runs = sorted((tmp_path / "logs/tiny").glob("sweep_*/*/config.yaml"))
    assert [path.parent.name for path in runs] == ["0", "1"]
    assert "CosineSchedule" in runs[0].read_text()
    assert "schedules.Flow" in runs[1].read_text()
    assert all((path.parent / "checkpoints" / "last.ckpt").exists() for path in runs)


# ---------------------------------------------------------------------- mistakes

SLOW = pytest.mark.slow  # it waits for the server for ten seconds


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trainer.max_step=5"], ["trainer.max_step", "trainer.max_steps"]),
        (["model/schedule=cosin"], ["cosin", "cosine"]),
        (["data.path=nowhere/at/all"], ["nowhere/at/all", "data.url"]),
        pytest.param(["data.url=ws://127.0.0.1:9/ws"], ["ws://127.0.0.1:9/ws", "diffusion_art.stream"], marks=SLOW),
        (["ckpt_path=last"], ["ckpt_path=last", "run=NAME"]),
        (["ckpt_path=pyproject.toml"], ["pyproject.toml"]),
        (
            [
                "model/schedule=squaredcos_cap_v2",
                "model.schedule.zero_terminal_snr=true",
                "model/prediction=epsilon",
            ],
            ["epsilon"],
        ),
        (["model.schedule._target_=torch.hub.load"], ["torch.hub.load"]),
        (["trainer.max_steps=0"], ["trainer.max_steps=0", "trainer.max_epochs"]),
        (["trainer.precision=fp16"], ["fp16"]),
        (["ckpt_path=true"], ["ckpt_path=true names no checkpoint: give last, best, auto"]),
        (["ckpt_path=https://example.org/a.ckpt"], ["https://example.org/a.ckpt is an address: download it"]),
        (["+data.batch_size=4"], ["unexpected keyword argument 'batch_size'"]),
        (["trainer.enable_checkpointing=false"], ["changes nothing here: give callbacks.checkpoints=null"]),
        (["+trainer.gradient_clip_algorithm=value"], ["algorithm=value changes nothing here: give trainer.gradient_"]),
        (["trainer.strategy=deepspeed_stage_2"], ["deepspeed_stage_2", "trainer=fsdp"]),
        (["+callbacks.early_stopping.patience=3"], ["callbacks.early_stopping names no callback", "_target_"]),
        (
            [
                "+callbacks.a._target_=lightning.pytorch.callbacks.GradientAccumulationScheduler",
                "+callbacks.a.scheduling={0: 2}",
            ],
            ["callbacks.a would change the batches of a step", "trainer.accumulate_grad_batches=N"],
        ),
        (
            ["+callbacks.a={_target_: lightning.pytorch.callbacks.OnExceptionCheckpoint, dirpath: x}"],
            ["callbacks.a would begin a new run from the file of an earlier one", "ckpt_path=auto"],
        ),
        (
            ["+callbacks.a._target_=lightning.pytorch.callbacks.EMAWeightAveraging"],
            ["callbacks.a would put its averages", "ema.decay=0.999"],
        ),
        (
            ["+callbacks.a._target_=lightning.pytorch.callbacks.BackboneFinetuning", "data.url=shards"],
            ["Lightning's finetuning cannot go on: 'DiffusionModule' object has no attribute 'backbone'"],
        ),
        (["model.text_encoder.heads=7"], ["embed_dim must be divisible by num_heads"]),
        (["data.curriculum.stages=[{until: 0.5, shrink: 8}]"], ["2 px", "multiples of 4 px", "data.curriculum.stages"]),
    ],
)
def test_a_mistake_gets_one_sentence(tiny, run_here, tmp_path, arguments, words):
    (tmp_path / "pyproject.toml").write_text("not a checkpoint")
    status, said, complaints = run_here("train", *tiny, *arguments)
    assert status == 1, said + complaints
    assert "Traceback" not in said + complaints
    errors = [line for line in complaints.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, complaints
    for word in words:
        assert word in errors[0]
    assert not list(tmp_path.rglob("*.ckpt"))


def test_an_unknown_experiment_names_the_known_ones(run_here):
    status, _, complaints = run_here("train", "+experiment=wikiat")
    assert status == 1
    assert complaints.startswith("error: ")
    assert "wikiat" in complaints
    assert "wikiart" in complaints.replace("wikiat", "")
    assert "Traceback" not in complaints


@pytest.mark.slow
def test_a_run_is_not_overwritten(tiny, run_here):
    assert run_here("train", *tiny, "run=mine", "trainer.max_steps=3")[0] == 0
    status, _, complaints = run_here("train", *tiny, "run=mine")
    assert status == 1
    assert "ckpt_path=last" in complaints


@pytest.mark.slow
def test_one_job_that_fails_leaves_the_others_and_is_named_at_the_end(tiny, run_here, tmp_path):
    settings = [*tiny, "callbacks.samples=null", "callbacks.loss_plot=null", "data.num_workers=0", "alignment=none"]
    settings += ["trainer.max_steps=2", "optim=adamw", "callbacks.throughput=null"]
    before = set(psutil.Process().children(recursive=True))
    status, said, complaints = run_here("train", "-m", *settings, "optim.lr=1e18,1e-3,2e-3")
    assert status == 1, said + complaints
    assert set(psutil.Process().children(recursive=True)) <= before  # no job leaves its server
    assert "Traceback" not in complaints
    assert "error: 1 of the jobs failed:\n  #0 optim.lr=1e+18: the loss became " in complaints
    jobs = sorted((tmp_path / "logs/tiny").glob("sweep_*/*/"))
    assert [(job / "checkpoints/last.ckpt").exists() for job in jobs] == [False, True, True]
    assert "ERROR" in (jobs[0] / "train.log").read_text()
    assert "the loss became" in (jobs[0] / "train.log").read_text()
    assert "failed at step" in Page(jobs[0] / "report.html").text
    assert [RunFolder(job, job.name).summary().state for job in jobs] == ["failed", "finished", "finished"]


@pytest.mark.slow
def test_a_run_without_callbacks_keeps_those_that_were_typed(tiny, run_here, tmp_path):
    """The experiment has settings of callbacks, which are left out as well."""
    monitor = "+callbacks.rate={_target_: diffusion_art.callbacks.throughput.LearningRate}"
    words = [word for word in tiny if not word.startswith("callbacks.")]
    status, _, complaints = run_here("train", *words, "run=none", "trainer.max_steps=1", "~callbacks", monitor)
    assert status == 0, complaints
    run = tmp_path / "logs" / "tiny" / "none"
    assert "train/lr" in pd.read_csv(run / "metrics.csv")
    assert not any((run / name).exists() for name in ("checkpoints", "samples", "report.html"))


@pytest.mark.slow
def test_a_run_is_prolonged_with_its_labels_and_says_when_it_is_done(tiny, run_here, tmp_path):
    """Its last step was validated, which Lightning takes for the end of a pass."""
    settings = [word for word in tiny if word != "callbacks.progress=null"]
    settings += ["callbacks.samples=null", "callbacks.loss_plot=null", "data.num_workers=0", "alignment=none"]
    settings += ["lr_schedule=constant", "trainer.val_check_interval=3", "run=long", "ckpt_path=auto"]
    for steps in (3, 6, 8):
        status, said, complaints = run_here("train", *settings, f"trainer.max_steps={steps}")
        assert status == 0, said + complaints
        assert f" {steps}/{steps} " in said  # where the bar ends
    run = tmp_path / "logs/tiny/long"
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics["step"].tolist() == list(range(8))
    assert metrics.dropna(subset="val/loss")["step"].tolist() == [2, 5]
    assert metrics["train/lr"].tolist() == pytest.approx([0.0028 * share for share in (1 / 3, 2 / 3, *[1] * 6)])
    assert "| steps | 8 (this session 2) |" in (run / "report.md").read_text()
    status, said, _ = run_here("train", *settings, "trainer.max_steps=8")
    assert status == 0
    assert "the run has done its 8 steps; prolong it with trainer.max_steps=16" in said


@pytest.mark.slow
def test_a_run_that_goes_on_otherwise_says_so_and_does_it(tiny, run_here, tmp_path):
    """torch would go on with the weight decay and the betas of before. What cannot go on is refused, and leaves no
    folder; so does a checkpoint after which nothing is left to train.
    """
    settings = [*tiny, "callbacks.samples=null", "callbacks.loss_plot=null", "data.num_workers=0", "alignment=none"]
    assert run_here("train", *settings, "trainer.max_steps=2", "run=first")[0] == 0
    module = DiffusionModule.load_from_checkpoint(tmp_path / "logs/tiny/first")
    for weights, held in (("raw", nullcontext()), ("ema", module.ema.averaged())):
        expected = load_text_to_image(tmp_path / "logs/tiny/first", weights=weights).trainable_state()
        with held:
            torch.testing.assert_close(module.model.trainable_state(), expected, rtol=0, atol=0)
    settings += ["ckpt_path=logs/tiny/first", "run=second"]
    for words, told in (
        (["trainer.max_steps=2"], "has done 2 steps, and nothing is left to train: give trainer.max_steps=4."),
        (
            ["trainer.max_steps=4", "optim=adamw"],
            "with the optimiser Muon, and this run has AdamW: give optim as it was",
        ),
        (["trainer.max_steps=4", "model/prediction=v"], "prediction Flow, and this run has V: give model/prediction"),
    ):
        status, said, complaints = run_here("train", *settings, *words)
        assert status == 1, said + complaints
        assert told in complaints
        assert not (tmp_path / "logs/tiny/second").exists()
    words = ["trainer.max_steps=4", "optim.weight_decay=0.5", "optim.betas=[0.5,0.6]", "caption_dropout=0.3"]
    status, said, complaints = run_here("train", *settings, *words)
    assert status == 0, said + complaints
    assert "other settings than in the checkpoint: caption_dropout=0.3 (0.1), optim.betas=[0.5, 0.6]" in said
    saved = torch.load(tmp_path / "logs/tiny/second/checkpoints/last.ckpt", weights_only=True)
    groups = saved["optimizer_states"][0]["param_groups"]
    assert {tuple(group["betas"]) for group in groups} == {(0.5, 0.6)}
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}
    status, said, _ = run_here("train", *settings, "run=third", "trainer.max_steps=4")
    assert "other settings" not in said


@pytest.mark.slow
def test_overfitting_sees_the_same_pictures_again_and_validates_on_them(tiny, run_here, tmp_path):
    settings = [*tiny, "callbacks.samples=null", "callbacks.loss_plot=null", "data.num_workers=1", "alignment=none"]
    status, said, complaints = run_here("train", *settings, "run=same", "trainer.overfit_batches=1", "optim.lr=1e-9")
    assert status == 0, said + complaints
    metrics = pd.read_csv(tmp_path / "logs/tiny/same/metrics.csv")
    assert metrics["train/loss"].nunique() == 12  # other noise at each step
    config = OmegaConf.load(tmp_path / "logs/tiny/same/config.yaml")
    data = build_datamodule(OmegaConf.to_container(config))
    data.trainer = None
    data.origin.url = "shards"
    data.setup()
    loader = data.train_dataloader()
    loader.dataset.last_batch = 3
    first, second, third = list(loader)
    assert first.keys == second.keys == third.keys
    assert torch.equal(first.images, third.images)
    assert (first.positions[0], third.positions[0]) == (0, 16)
    assert next(iter(data.val_dataloader())).keys == first.keys
    data.teardown()


def test_data_without_a_validation_split_is_trained_on_without_a_warning(run_here, tmp_path):
    build_shards(Painter(count=40, image_size_px=16), tmp_path / "S", image_size_px=16, val_fraction=0, progress=False)
    settings = [*TINY, f"data.path={tmp_path / 'S'}", "callbacks.samples=null", "data.num_workers=0", "alignment=none"]
    status, said, complaints = run_here("train", *settings, "trainer.max_steps=2", "run=a")
    assert status == 0, said + complaints
    assert "is zero" not in said + complaints


def test_a_second_start_with_the_same_name_is_refused(tiny, run_here, tmp_path):
    with _holder(tmp_path / "logs/tiny/mine"):
        status, _, complaints = run_here("train", *tiny, "run=mine")
    assert status == 1
    assert "logs/tiny/mine is being trained by process" in complaints
