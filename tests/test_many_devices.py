"""Several processes train what one does, none waits for one that is gone, and a run goes on with any number of them."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from diffusers import AutoencoderKL
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict_saver import save

from diffusion_art.checkpoints import find_checkpoint, load_text_to_image, read_checkpoint
from diffusion_art.consolidate import consolidate
from diffusion_art.errors import UserError
from diffusion_art.launching.processes import check_processes
from diffusion_art.models.clip_to_train import Contrastive
from diffusion_art.record import KEY
from diffusion_art.shared_checkpoint import SHARED, described, read_shared, write_shared
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.module import DiffusionModule
from diffusion_art.training.optim import Constant
from diffusion_art.training.plain_steps import ClipStep
from diffusion_art.training.processes.peers import Lost, speaks
from diffusion_art.training.processes.sharded import ShardedStrategy
from diffusion_art.training.run.resume import checked_resume, steps_done
from tests.commands import COMMON, Command
from tests.golden.trace import HERE
from tests.test_clip import TINY as CLIP
from tests.test_clip import small as small_clip
from tests.test_latents import AUTOENCODER
from tests.test_train import TINY, _assert_equal, _wait_for, _weights

EXACT = [  # what differs between numbers of processes is the order of sums, which these do not enlarge
    "trainer.precision=32-true",
    "optim=adamw",  # Muon's bfloat16 makes steps out of differences in rounding
    "optim.lr=1e-4",  # the baseline's
    "alignment=none",  # its relation is between the pictures of one process
]
QUIET = ["callbacks.samples=null", "callbacks.loss_plot=null", "callbacks.report=null", "trainer.val_check_interval=25"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@pytest.fixture
def tiny(painter_shards) -> list[str]:
    return [*TINY, *EXACT, *QUIET, f"data.path={painter_shards}", "data.url=shards", "data.num_workers=0"]


def _processes(count: int, strategy: str = "ddp") -> list[str]:
    return [f"trainer={strategy}", f"trainer.devices={count}", "trainer.accelerator=cpu"] if count > 1 else []


def _assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        if not name.startswith("adam"):
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def _losses(run: Path) -> pd.DataFrame:
    metrics = pd.read_csv(run / "metrics.csv").set_index("step")
    return metrics.reindex(columns=["train/loss", "val/loss"])


def _assert_same_losses(one: Path, other: Path) -> None:
    pd.testing.assert_frame_equal(_losses(one), _losses(other), rtol=0, atol=1e-5)


def _train(*arguments: str) -> list[str]:
    return ["-m", "diffusion_art.train", *arguments]


OTHER_LOSSES = [("by us", 0), ("by torchrun", 0), ("by torchrun", 1)]


def _start(command: list[str], cwd: Path) -> subprocess.Popen:
    return Command(
        command,
        cwd=cwd,
        env={**os.environ, **COMMON},
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _rank(process: subprocess.Popen, rank: int) -> psutil.Process:
    """The process of that rank among those that a launcher started."""
    found = [child for child in psutil.Process(process.pid).children(recursive=True) if child.is_running()]
    return next(child for child in found if child.environ().get("RANK") == str(rank))


def _child(process: subprocess.Popen) -> psutil.Process:
    """The only process that a launcher has started."""
    found = psutil.Process(process.pid).children(recursive=True)
    return next(child for child in found if "RANK" in child.environ())


def _newest(run: Path) -> int:
    return max((int(path.stem[5:]) for path in run.glob("checkpoints/step_*.ckpt")), default=0)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.longest)])
def test_processes_train_what_one_does_for_fifty_steps(count, tiny, run_command, tmp_path):
    for name, processes in (("one", 1), ("many", count)):
        said = run_command(
            "train",
            *tiny,
            "trainer.max_steps=50",
            f"run={name}",
            *_processes(processes),
            cwd=tmp_path,
            timeout=1200,
        )
        assert said.returncode == 0, said.stdout + said.stderr
    runs = tmp_path / "logs/tiny"
    assert len(_losses(runs / "one")["train/loss"].dropna()) == 50
    _assert_same_losses(runs / "one", runs / "many")
    _assert_close(_weights(runs / "one"), _weights(runs / "many"))


@pytest.mark.slow
@pytest.mark.longest
def test_a_run_goes_on_with_two_then_four_then_one_process_and_sees_the_same_pictures(tiny, run_command, tmp_path):
    said = run_command("train", *tiny, "trainer.max_steps=18", "run=one", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    for until, count in ((6, 2), (12, 4), (18, 1)):
        asked = [f"trainer.max_steps={until}", "lr_schedule.total_steps=18", "ckpt_path=auto", "run=many"]
        said = run_command("train", *tiny, *asked, *_processes(count), cwd=tmp_path, timeout=1200)
        assert said.returncode == 0, said.stdout + said.stderr
    runs = tmp_path / "logs/tiny"
    one, many = (_losses(runs / name)["train/loss"].dropna() for name in ("one", "many"))
    pd.testing.assert_series_equal(one, many, rtol=0, atol=1e-5)
    _assert_close(_weights(runs / "one"), _weights(runs / "many"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launched", "victim"),
    [("by us", 1), *(pytest.param(*case, marks=pytest.mark.longest) for case in OTHER_LOSSES)],
)
def test_when_a_process_is_killed_the_others_say_so_and_end_and_the_run_resumes(launched, victim, tiny, tmp_path):
    asked = [*tiny, *_processes(2), "trainer.max_steps=400", "run=cut"]
    command = [sys.executable] if launched == "by us" else [*TORCHRUN, "--nproc-per-node=2"]
    process = _start([*command, *_train(*asked)], tmp_path)
    run = tmp_path / "logs/tiny/cut"
    _wait_for(lambda: _newest(run) >= 3, process, timeout=300)
    _rank(process, victim).kill()
    began = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode != 0
    said = [line for line in output.splitlines() if line.startswith(f"error: process {victim} of 2 ended")]
    assert len(said) == 1, output
    assert "killed" in said[0]
    step = _newest(run)
    ends = [f"Step {saved} is saved; go on with: ckpt_path=logs/tiny/cut" for saved in (step, step - 3)]
    assert said[0].endswith(tuple(ends)), (step, said)  # the last one may have been written while that was said
    if launched == "by us":
        assert "Traceback" not in output
        assert "SIGKILL" in said[0]


@pytest.mark.slow
@pytest.mark.longest
def test_torchrun_starts_a_killed_run_again_which_ends_as_one_never_killed(tiny, run_command, tmp_path):
    asked = [*tiny, *_processes(2), "trainer.max_steps=60"]
    said = run_command("train", *asked, "run=whole", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    elastic = [*TORCHRUN, "--nproc-per-node=2", "--max-restarts=1", *_train(*asked, "run=cut")]
    process = _start(elastic, tmp_path)
    runs = tmp_path / "logs/tiny"
    _wait_for(lambda: _newest(runs / "cut") >= 3, process, timeout=300)
    _rank(process, 1).send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resuming from" in output
    _assert_equal(_weights(runs / "whole"), _weights(runs / "cut"))
    _assert_same_losses(runs / "whole", runs / "cut")


@pytest.mark.slow
@pytest.mark.longest
def test_two_machines_whose_torchruns_count_differently_start_a_killed_run_again(tiny, tmp_path):
    """Each has one process; the launcher of the one that lives on does not call it a restart."""
    asked = [*tiny, "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2", "trainer.accelerator=cpu", "run=cut"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    machine = [*TORCHRUN[:-1], "--nnodes=2", "--nproc-per-node=1", "--max-restarts=2"]
    meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={place}", "--rdzv-id=a", "--local-addr=127.0.0.1"]
    command = [*machine, *meet, *_train(*asked, "trainer.max_steps=60")]
    machines = [_start(command, tmp_path) for _ in range(2)]
    run = tmp_path / "logs/tiny/cut"
    for killed, step in ((0, 3), (1, 30)):
        _wait_for(lambda step=step: _newest(run) >= step, machines[0], timeout=300)
        _child(machines[killed]).kill()
    outputs = [each.communicate(timeout=300)[0] for each in machines]
    assert [each.returncode for each in machines] == [0, 0], "\n".join(outputs)
    assert sum(output.count("resuming from") for output in outputs) == 2
    assert _newest(run) == 60


@pytest.mark.slow
@pytest.mark.longest
def test_shared_weights_go_on_with_any_number_of_processes_and_become_one_file(tiny, run_command, tmp_path):
    """With grids and validations, whose last batch has a picture for one process only."""
    tiny = [word for word in tiny if word != "callbacks.samples=null"]
    asked = ["trainer.val_check_interval=3", "data.val_samples=9", "lr_schedule.total_steps=9", "prompts=[red]"]
    said = run_command("train", *tiny, *asked, "trainer.max_steps=9", "run=one", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    runs = tmp_path / "logs/tiny"
    for until, processes in ((3, _processes(2, "fsdp")), (6, _processes(4, "fsdp")), (9, [])):
        more = [f"trainer.max_steps={until}", "ckpt_path=auto", "run=many", *processes]
        said = run_command("train", *tiny, *asked, *more, cwd=tmp_path, timeout=1200)
        assert said.returncode == 0, said.stdout + said.stderr
    _assert_same_losses(runs / "one", runs / "many")
    one, many = (_weights(runs / name) for name in ("one", "many"))
    _assert_close(one, many)
    for name in one:  # the moments too, which a wrong layout in memory would mix up
        torch.testing.assert_close(one[name], many[name], atol=1e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    folder = runs / "many/checkpoints/step_00000006.ckpt"
    assert folder.is_dir()
    held = load_text_to_image(folder).trainable_state()
    said = run_command("consolidate", f"run={folder}", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert folder.is_file()
    _assert_equal(held, load_text_to_image(folder).trainable_state())
    again = run_command("train", *tiny, *asked, "trainer.max_steps=9", "run=again", f"ckpt_path={folder}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    _assert_equal(_weights(runs / "many"), _weights(runs / "again"))


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize(
    "recipe",
    [
        ["optim=muon", "optim.lr=1e-3", "trainer.precision=bf16", "alignment=features"],
        ["trainer.accumulate_grad_batches=2", "perceptual=features"],
    ],
    ids=["muon, bf16, alignment", "accumulation, perceptual"],
)
def test_shared_weights_learn_by_every_recipe_what_whole_ones_do(recipe, tiny, run_command, tmp_path):
    losses = []
    for strategy in ("ddp", "fsdp"):
        asked = [*tiny, *recipe, *_processes(2, strategy), "trainer.max_steps=6", "trainer.val_check_interval=6"]
        said = run_command("train", *asked, f"run={strategy}", cwd=tmp_path, timeout=1200)
        assert said.returncode == 0, said.stdout + said.stderr
        losses.append(_losses(tmp_path / "logs/tiny" / strategy))
    assert len(losses[0]["train/loss"].dropna()) == 6
    assert losses[0]["val/loss"].notna().sum() == 1
    tolerance = 1e-3 if "optim=muon" in recipe else 1e-5
    pd.testing.assert_frame_equal(*losses, rtol=tolerance, atol=1e-5)


@pytest.mark.slow
def test_shared_weights_learn_compiled_what_one_process_does_as_it_is(tiny, run_command, tmp_path):
    small = ["model.backbone.block_channels=[16]", "model.backbone.attention_sides=[8]", "trainer.max_steps=3"]
    for name, processes in (("one", []), ("many", [*_processes(2, "fsdp"), "compile=true"])):
        asked = [*tiny, *small, *processes, "trainer.val_check_interval=3", f"run={name}"]
        said = run_command("train", *asked, cwd=tmp_path, timeout=1200)
        assert said.returncode == 0, said.stdout + said.stderr
    runs = tmp_path / "logs/tiny"
    assert len(_losses(runs / "one")["train/loss"].dropna()) == 3
    _assert_same_losses(runs / "one", runs / "many")
    one, many = (load_text_to_image(find_checkpoint(runs / name)).trainable_state() for name in ("one", "many"))
    _assert_close(one, many)


@pytest.fixture
def folder(tmp_path) -> Path:
    """The checkpoint of a run, written as a folder, with its averaged weights among the shared tensors."""
    path = tmp_path / "logs/tiny/shared/checkpoints/step_00000020.ckpt"
    path.mkdir(parents=True)
    plain = read_checkpoint(HERE / "old" / "last.ckpt")
    tensors = {f"ema/{name}": value for name, value in plain[KEY]["ema"].items()}
    plain[KEY]["ema"] = {name: {SHARED: f"ema/{name}"} for name in plain[KEY]["ema"]}
    with warnings.catch_warnings():  # one process writes all of it
        warnings.simplefilter("ignore")
        save(tensors, checkpoint_id=path, no_dist=True)
    torch.save(plain, path / "plain.pt")
    return path


def _consolidate(run: Path, out: str | None = None) -> Path:
    return consolidate(OmegaConf.create({"run": str(run), "checkpoint": "last", "out": out}))


@pytest.mark.parametrize("out", [None, "step_00000020.ckpt", "../elsewhere.ckpt"])
def test_one_file_is_made_of_a_folder(out, folder, monkeypatch):
    held = read_checkpoint(folder)[KEY]["ema"]
    monkeypatch.chdir(folder.parent)
    file = _consolidate(folder, out)
    assert file.is_file()
    assert folder.is_dir() == (out == "../elsewhere.ckpt")
    _assert_equal(held, read_checkpoint(file)[KEY]["ema"])
    assert sorted(path.name for path in folder.parent.iterdir()) == ["step_00000020.ckpt"]


def test_a_consolidate_that_is_interrupted_loses_nothing(folder, monkeypatch):
    held = read_checkpoint(folder)[KEY]["ema"]

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _consolidate(folder)
    assert folder.is_file()
    _assert_equal(held, read_checkpoint(folder)[KEY]["ema"])


def test_consolidate_removes_no_other_folder(folder, tmp_path):
    with pytest.raises(UserError, match=r"out=.*logs is a folder"):
        _consolidate(folder, str(tmp_path / "logs"))
    assert folder.is_dir()


@pytest.mark.slow
@pytest.mark.longest
def test_snapshots_of_shared_weights_are_those_of_the_averages(tiny, run_command, tmp_path):
    asked = [*tiny, *_processes(2, "fsdp"), "ema=post_hoc", "callbacks.snapshots.dtype=fp32", "trainer.max_steps=2"]
    said = run_command("train", *asked, "run=shared", cwd=tmp_path, timeout=300)
    assert said.returncode == 0, said.stdout + said.stderr
    run = tmp_path / "logs/tiny/shared"
    (snapshot,) = run.rglob("step_00000002.safetensors")
    record = read_checkpoint(find_checkpoint(run))[KEY]
    averages = {str(record["ema_name"]): record["ema"], **record["averages"]}
    held = {f"{name}/{key}": value for name, average in averages.items() for key, value in average.items()}
    written = load_file(snapshot)
    assert written
    _assert_equal(written, {name: held[name] for name in written})


CALLED = ("LOCAL_WORLD_SIZE", "LOCAL_RANK", "RANK", "SLURM_NTASKS", "SLURM_NNODES", "SLURM_JOB_NAME", "SLURM_LOCALID")
CALLED += ("SLURM_PROCID",)
PLAIN, DDP = {"devices": 1}, {"devices": 2, "strategy": "ddp"}


@pytest.mark.parametrize(
    ("started", "trainer", "refused"),
    [
        ({}, DDP, None),
        ({"LOCAL_WORLD_SIZE": "2"}, DDP, None),
        ({"SLURM_NTASKS": "4", "SLURM_NNODES": "2"}, DDP, None),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"}, PLAIN, None),
        ({"LOCAL_WORLD_SIZE": "4"}, DDP, "4 processes were started on this machine, and trainer.devices=2: give"),
        ({"SLURM_NTASKS": "8"}, DDP, "give trainer.devices=8."),
        ({"SLURM_NTASKS": "1"}, DDP, "1 process was started on this machine, and trainer.devices=2: give"),
        ({"LOCAL_WORLD_SIZE": "2"}, PLAIN, "give trainer=ddp trainer.devices=2."),
    ],
)
def test_processes_that_were_started_are_as_many_as_the_run_has(started, trainer, refused, monkeypatch):
    for name in CALLED:
        monkeypatch.delenv(name, raising=False)
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    if refused is None:
        check_processes(trainer)
        return
    with pytest.raises(UserError, match=re.escape(refused)):
        check_processes(trainer)


@pytest.mark.parametrize("launcher", ["torchrun", "SLURM"])
@pytest.mark.parametrize(("lost", "telling"), [(0, [1, 2]), (1, [0, 2]), (2, [0, 3]), (3, [0, 2])])
def test_one_process_on_each_of_two_machines_tells_of_a_lost_one(launcher, lost, telling, monkeypatch):
    def tells(rank: int) -> bool:
        here = {"LOCAL_RANK": rank % 2, "RANK": rank, "LOCAL_WORLD_SIZE": 2}
        slurms = {"SLURM_LOCALID": rank % 2, "SLURM_PROCID": rank, "SLURM_NTASKS": 4, "SLURM_NNODES": 2}
        for name, value in (here if launcher == "torchrun" else slurms).items():
            monkeypatch.setenv(name, str(value))
        return speaks(Lost(lost, "it was killed"))

    for name in CALLED:
        monkeypatch.delenv(name, raising=False)
    assert [rank for rank in range(4) if rank != lost and tells(rank)] == telling


def test_a_run_of_other_processes_than_were_started_is_refused_before_it_begins(tiny, run_here, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    status, _, complaints = run_here("train", *tiny, *_processes(2))
    assert status == 1
    assert "3 processes were started on this machine, and trainer.devices=2: give trainer.devices=3." in complaints


@pytest.mark.slow
def test_an_autoencoder_whose_weights_are_shared_out_shows_what_it_decodes_and_writes_its_folder(
    painter_shards, run_command, tmp_path
):
    data = ["data.source=null", f"data.path={painter_shards}"]
    asked = [*AUTOENCODER, *data, *_processes(2, "fsdp"), "trainer.precision=32-true", "trainer.max_steps=4"]
    said = run_command("train", *asked, "run=shared", cwd=tmp_path, timeout=300)
    assert said.returncode == 0, said.stdout + said.stderr
    run = tmp_path / "logs/autoencoder/shared"
    assert sorted(path.name for path in run.glob("samples/*.png")) == ["step_00000002.png", "step_00000004.png"]
    net: Any = AutoencoderKL.from_pretrained(run / "vae")
    averaged = read_checkpoint(find_checkpoint(run))[KEY]["ema"]
    _assert_equal(averaged, {f"net.{name}": value for name, value in net.state_dict().items()})


def test_a_clip_is_not_shared_out():
    parts: dict[str, Any] = {"optimizer": torch.optim.AdamW, "lr_schedule": Constant(warmup_steps=0), "ema": Ema}
    module = DiffusionModule(ClipStep(small_clip(), Contrastive()), **parts)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", devices=1, strategy=ShardedStrategy(), enable_checkpointing=False, **quiet)
    module.trainer = trainer
    with pytest.raises(UserError, match="of a CLIP's is a single number: take trainer=ddp"):
        module.configure_model()


@pytest.mark.slow
def test_a_clip_is_measured_where_a_process_has_no_held_out_picture(painter_shards, run_command, tmp_path):
    asked = [*CLIP, f"data.path={painter_shards}", *_processes(2), "data.val_samples=1", "trainer.max_steps=2"]
    said = run_command("train", *asked, "trainer.val_check_interval=2", "run=two", cwd=tmp_path, timeout=300)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "step 2: of 1 held-out pairs" in said.stdout + said.stderr


@pytest.mark.parametrize("part", [".metadata", "plain.pt", "__0_0.distcp"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_folder_that_was_copied_in_part_is_passed_over_and_told(part, share, folder, caplog):
    whole = folder.with_name("step_00000010.ckpt")
    shutil.copytree(folder, whole)
    assert find_checkpoint(folder.parent.parent) == folder
    held = (folder / part).read_bytes()
    (folder / part).write_bytes(held[: int(share * len(held))])
    assert find_checkpoint(folder.parent.parent) == whole
    assert "step_00000020.ckpt is not whole; going on with step_00000010.ckpt" in caplog.text
    with pytest.raises(UserError, match=r"step_00000020\.ckpt (is not whole|cannot be read).*[Cc]opy it again"):
        read_checkpoint(folder)
    (folder / part).unlink()
    with pytest.raises(UserError, match=rf"is not whole: {part} in it is missing"):
        read_checkpoint(folder)


def test_a_part_that_is_not_what_was_written_is_told(folder):
    (part,) = folder.glob("*.distcp")
    part.write_bytes(bytes(part.stat().st_size))
    with pytest.raises(UserError, match=r"step_00000020\.ckpt cannot be read as a checkpoint \(.*Copy it again"):
        read_checkpoint(folder)


def test_to_name_a_step_no_shared_tensor_is_read(folder):
    (part,) = folder.glob("*.distcp")
    part.write_bytes(bytes(part.stat().st_size))
    assert steps_done(folder) == 20
    assert checked_resume(str(folder), folder.parent.parent) == folder


def test_a_folder_leaves_nothing_of_the_file_whose_place_it_takes(tmp_path):
    path = tmp_path / "step_00000001.ckpt"
    path.write_bytes(b"before")
    with warnings.catch_warnings():  # one process writes all of it
        warnings.simplefilter("ignore")
        write_shared(path, {"global_step": 1}, first=True, wait=lambda: None)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert read_shared(path) == {"global_step": 1}


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_descriptions_may_hold_a_path_of_any_python(module, tmp_path):
    """3.13 pickles it by another name."""
    (tmp_path / ".metadata").write_bytes(f"c{module}\nPosixPath\n(V/logs/run\ntR.".encode())
    assert described(tmp_path) == PurePosixPath("/logs/run")


def test_a_folder_that_is_no_checkpoint_of_ours_runs_no_code(tmp_path):
    folder = tmp_path / "step_00000001.ckpt"
    folder.mkdir()
    torch.save({}, folder / "plain.pt")
    (folder / ".metadata").write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match=r"builtins.print, which could run code"):
        read_checkpoint(folder)
