"""A command that is forked behaves as one that is started: what it says, how it ends, what it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import commands
from tests.commands import COMMON, Command
from tests.test_train import TINY, _wait_for


def _run(*words: str, cwd: Path) -> tuple[int, str, str]:
    line = [sys.executable, "-m", *words]
    pipe = subprocess.PIPE
    with Command(line, cwd=cwd, env={**os.environ, **COMMON}, stdout=pipe, stderr=pipe, text=True) as command:
        said, complaints = command.communicate(timeout=300)
    assert (command._told is not None) == (commands._started > 1)
    return command.returncode, said, complaints


@pytest.mark.slow
def test_one_that_is_forked_says_and_ends_as_one_that_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "_started", 0)
    mistake = ["diffusion_art.sample", "run=nowhere"]  # the folder that it runs in is where it looks
    started = _run(*mistake, cwd=tmp_path)
    assert started[0] == 1
    assert "error: there is no run at nowhere" in started[2]
    assert _run(*mistake, cwd=tmp_path) == started


@pytest.mark.slow
def test_one_that_is_forked_is_waited_for_and_killed(painter_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "_started", 1)
    words = [*TINY, f"data.path={painter_shards}", "run=a", "trainer.max_steps=4000", "data.num_workers=0"]
    line = [sys.executable, "-m", "diffusion_art.train", *words]
    with Command(line, cwd=tmp_path, env={**os.environ, **COMMON}, stdout=subprocess.PIPE, text=True) as command:
        _wait_for((tmp_path / "logs/tiny/a/metrics.csv").exists, command)
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(0.01)
        command.kill()
        command.communicate()
    assert command.returncode == -signal.SIGKILL
    report = (tmp_path / "logs/tiny/a/train.log").read_text()
    assert "Traceback" not in report
