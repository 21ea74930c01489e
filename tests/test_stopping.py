"""Whoever is asked to stop, the step is finished and saved, and the run goes on from there as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from diffusion_art.training.run.stopping import stop_request
from tests.commands import COMMON, Command
from tests.test_train import _assert_equal, _wait_for, _weights

TINY = [
    "+experiment=quickstart32",
    "+debug=tiny",
    "data.source=null",
    "callbacks.progress=null",
    "callbacks.samples=null",
]
LONG = ["trainer.max_steps=4000", "callbacks.checkpoints.every_n_steps=1000", "trainer.val_check_interval=1000"]


@pytest.fixture
def tiny(painter_shards) -> list[str]:
    return [*TINY, "callbacks.loss_plot=null", f"data.path={painter_shards}"]


def _start(command: list[str], cwd: Path) -> subprocess.Popen:
    """In a process group of its own, which hears Ctrl-C also where the tests run in the background and do not."""
    environment = {**os.environ, **COMMON}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child would inherit that it is ignored
    process = Command(command, cwd=cwd, env=environment, text=True, start_new_session=True, **pipes)
    signal.signal(signal.SIGINT, before)
    STARTED.append(process)
    return process


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """A test that fails leaves no training behind, which would slow those after it."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _train(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "diffusion_art.train", *arguments]


def _saved_step(run: Path) -> int:
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["StreamDataModule"]["cursor"] == saved["global_step"]
    return saved["global_step"]


def _gone(processes: list[psutil.Process]) -> bool:
    return all(not process.is_running() or process.status() == psutil.STATUS_ZOMBIE for process in processes)


def _signal_later(chosen: Callable[[psutil.Process], bool], number: int, when: Path) -> threading.Thread:
    """Once the file `when` is there, send `number` to the newest child of this process that is `chosen`."""

    def send() -> None:
        while not when.exists():
            time.sleep(0.02)
        found = [child for child in psutil.Process().children() if chosen(child)]
        max(found, key=psutil.Process.create_time).send_signal(number)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def _is_server(process: psutil.Process) -> bool:
    return "diffusion_art.streaming.server" in process.cmdline()


def _is_worker(process: psutil.Process) -> bool:
    return process.cmdline() == psutil.Process().cmdline()  # forked


@pytest.mark.slow
def test_a_signal_to_the_whole_group_saves_and_leaves(tiny, tmp_path):
    process = _start(_train(*tiny, *LONG, "run=all", "data.num_workers=2"), tmp_path)
    run = tmp_path / "logs/tiny/all"
    _wait_for((run / "metrics.csv").exists, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    step = _saved_step(run)
    assert 0 < step < 4000
    said = output.strip().splitlines()[2:]  # after what the run is and reads; then what it will do
    assert said[1:] == [f"SIGTERM: stopped at step {step}, which is saved; go on with: ckpt_path=logs/tiny/all"]
    assert len(children) == 3
    assert _gone(children)


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_ends_the_run_which_resumes_to_the_same_bits(tiny, run_here, tmp_path):
    """In the middle of two parts of a step, with a schedule that remembers validations."""
    settings = [*tiny, "lr_schedule=plateau", "lr_schedule.patience=0", "trainer.accumulate_grad_batches=2"]
    settings += ["trainer.max_steps=10", "trainer.val_check_interval=3", "alignment=none", "data.num_workers=2"]
    settings += ["callbacks.checkpoints.every_n_steps=0"]
    assert run_here("train", *settings, "run=whole")[0] == 0
    runs = tmp_path / "logs" / "tiny"
    sender = _signal_later(_is_worker, signal.SIGTERM, runs / "cut" / "metrics.csv")
    status, said, complaints = run_here("train", *settings, "run=cut", "trainer.log_every_n_steps=1")
    sender.join(5)
    assert status == 128 + signal.SIGTERM, said + complaints
    assert 0 < torch.load(runs / "cut/checkpoints/last.ckpt", weights_only=True)["global_step"] < 10
    assert run_here("train", *settings, "run=cut", "ckpt_path=last")[0] == 0
    _assert_equal(_weights(runs / "whole"), _weights(runs / "cut"))
    whole, cut = (pd.read_csv(runs / name / "metrics.csv") for name in ("whole", "cut"))
    assert cut["step"].tolist() == whole["step"].tolist() == list(range(10))
    assert cut["train/loss"].tolist() == whole["train/loss"].tolist()
    assert cut["val/loss"].dropna().tolist() == whole["val/loss"].dropna().tolist()


@pytest.mark.parametrize(
    ("chosen", "number"),
    [(_is_server, signal.SIGTERM), pytest.param(_is_worker, signal.SIGINT, marks=pytest.mark.slow)],
)
def test_so_does_the_server_and_a_ctrl_c(chosen, number, tiny, run_here, tmp_path):
    run = tmp_path / "logs/tiny/one"
    sender = _signal_later(chosen, number, run / "metrics.csv")
    status, said, complaints = run_here("train", *tiny, *LONG, "run=one", "data.num_workers=1")
    sender.join(5)
    assert status == 128 + number, said + complaints
    assert 0 < _saved_step(run) < 4000
    assert "starting it again" not in said + complaints
    assert not stop_request.number  # a trainer that this process builds next is not asked to stop


def test_a_killed_worker_costs_no_step_and_no_traceback(tiny, run_here, tmp_path):
    next(iter(DataLoader(range(2), num_workers=1)))  # leaves torch's handler, which raises at any place
    run = tmp_path / "logs/tiny/lost"
    sender = _signal_later(_is_worker, signal.SIGKILL, run / "metrics.csv")
    status, said, complaints = run_here("train", *tiny, *LONG, "run=lost", "data.num_workers=1")
    sender.join(5)
    assert status == 1, said + complaints
    assert complaints.startswith("error: a worker that prepares the data was killed")
    assert "Traceback" not in complaints
    assert 0 < _saved_step(run) < 4000


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("workers", [0, 4])
def test_all_signals_with_and_without_workers(number, workers, tiny, tmp_path):
    process = _start(_train(*tiny, *LONG, "run=all", f"data.num_workers={workers}"), tmp_path)
    run = tmp_path / "logs/tiny/all"
    _wait_for((run / "metrics.csv").exists, process)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, output
    assert _saved_step(run) > 0
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("launched", [pytest.param("by torchrun", marks=pytest.mark.longest), "by us"])
def test_two_processes_stop_at_the_same_step_and_resume(launched, tiny, tmp_path):
    arguments = [*tiny, "alignment=none", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "run=two"]
    arguments += ["data.num_workers=1"]
    if launched == "by torchrun":
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command = [*torchrun, "-m", "diffusion_art.train", *arguments]
    else:
        command = _train(*arguments)
    process = _start([*command, *LONG], tmp_path)
    run = tmp_path / "logs/tiny/two"
    _wait_for((run / "metrics.csv").exists, process, timeout=240)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    step = _saved_step(run)
    assert step > 0
    assert output.count(f"SIGTERM: stopped at step {step}") == 1
    if launched == "by us":
        assert process.returncode == 128 + signal.SIGTERM, output
        assert "Traceback" not in output
    end = f"trainer.max_steps={step + 2}"
    again = subprocess.run([*command, end, "ckpt_path=last"], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert _saved_step(run) == step + 2


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.skipif(shutil.which("make") is None or shutil.which("timeout") is None, reason="needs make and timeout")
def test_timeout_of_make_train_leaves_a_checkpoint(tiny, tmp_path):
    arguments = " ".join([*tiny, "trainer.max_steps=100000", "run=made", "callbacks.checkpoints.every_n_steps=100000"])
    makefile = f"train:\n\t{sys.executable} -m diffusion_art.train {arguments}\n"
    (tmp_path / "Makefile").write_text(makefile)
    process = _start(["timeout", "-s", "TERM", "60", "make", "train"], tmp_path)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 124, output
    assert _saved_step(tmp_path / "logs/tiny/made") > 0
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_signal_while_shards_are_built_leaves_at_once(tmp_path):
    arguments = ["+experiment=quickstart32", "+debug=tiny", "data.source.count=200000", "run=early"]
    process = _start(_train(*arguments), tmp_path)
    _wait_for(lambda: any((tmp_path / "data").glob("*/.building/*")), process)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "SIGTERM: stopped before the first step" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_ctrl_c_in_prepare_is_one_line(tmp_path):
    arguments = ["source=painter", "source.count=200000", "image_size_px=16", "out=S"]
    process = _start([sys.executable, "-m", "diffusion_art.prepare", *arguments], tmp_path)
    _wait_for(lambda: any((tmp_path / "S").glob(".building/spool*")), process)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, output
    assert "error: stopped by Ctrl-C; the same command goes on from what S holds" in output
    assert "Traceback" not in output
