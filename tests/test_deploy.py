"""The files of deploy/: their tools take them, and the commands in them compose."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "diffusion-art-stream.service"
FAKES = {  # a cluster of this machine
    "srun": 'echo "$@" > asked\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"',
    "scontrol": 'echo "$@" >> requeued',
    "python": 'trap "echo stopped >> said; exit 1" TERM\necho "$@" > said\nwhile :; do sleep 0.02; done',
}


def composes(run_here, words: list[str]) -> str:
    """The config of `python -m diffusion_art.NAME ...`."""
    name = words[words.index("-m") + 1].removeprefix("diffusion_art.")
    status, said, complaints = run_here(name, *words[words.index("-m") + 2 :], "--cfg", "job")
    assert status == 0, complaints
    return said


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/diffusion-art/bin/python", sys.executable))
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_command_of_the_unit_composes(run_here):
    (command,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    (path,) = re.findall(r"^DATA_PATH=(.*)$", (DEPLOY / "stream.env").read_text(), re.MULTILINE)
    said = composes(run_here, shlex.split(command.replace("${DATA_PATH}", path)))
    assert "path: s3://bucket/wikiart-128px" in said
    assert "host: 0.0.0.0" in said


def test_every_command_of_compose_and_its_images_composes(run_here):
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for service in services.values():
        build = service["build"]
        text = (DEPLOY / build["context"] / build["dockerfile"]).read_text()
        stage = re.split(r"(?m)^FROM ", text[text.index(f"AS {build['target']}\n") :])[0]
        entry, usual = (json.loads(re.findall(rf"(?m)^{word} (.*)$", stage)[0]) for word in ("ENTRYPOINT", "CMD"))
        for words in (usual, service["command"]):
            composes(run_here, [word.replace("${DATA_PATH:-/data}", "/data") for word in [*entry, *words]])
    assert services["train"]["depends_on"]["stream"]["condition"] == "service_healthy"


def test_compose_takes_the_place_of_the_shards_from_stream_env():
    text, environment = (DEPLOY / "compose.yaml").read_text(), (DEPLOY / "stream.env").read_text()
    commands = re.findall(r"docker compose[^`\n]*", text + (ROOT / "docs" / "remote.md").read_text())
    assert len(commands) == 3
    for words in map(shlex.split, commands):
        assert words[2:6] == ["--env-file", "deploy/stream.env", "-f", "deploy/compose.yaml"]
    for name in re.findall(r"\$\{(\w+)", text):  # `env_file` is for what runs in the container alone
        assert re.search(rf"(?m)^{name}=.", environment)


def test_the_images_copy_what_is_there_and_install_extras_that_there_are():
    text, project = (DEPLOY / "Dockerfile").read_text(), (ROOT / "pyproject.toml").read_text()
    for words in re.findall(r"(?m)^COPY (.*) \S+$", text):
        assert all((ROOT / word).exists() for word in words.split())
    for extras in re.findall(r"'\.\[(.*)\]'", text):
        assert all(re.search(rf"(?m)^{extra} = \[", project) for extra in extras.split(","))


def test_shellcheck_has_nothing_to_say():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run([shellcheck, DEPLOY / "train.slurm"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.fixture
def job(tmp_path: Path):
    """The SLURM script, running, with stand-ins for the cluster's commands and for Python."""
    (tmp_path / "bin").mkdir()
    for name, script in FAKES.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYTHON": "python", "USER": "anna", "SLURM_JOB_ID": "7"}
    environment["SLURM_CPUS_PER_TASK"] = "6"
    script = subprocess.Popen(["bash", str(DEPLOY / "train.slurm")], cwd=tmp_path, env=environment)
    while not (tmp_path / "said").is_file() or not (tmp_path / "said").read_text():
        time.sleep(0.01)
    yield script
    script.kill()
    script.wait()


def test_the_slurm_job_composes_and_queues_itself_again_when_its_time_is_nearly_up(job, tmp_path: Path, run_here):
    composes(run_here, shlex.split((tmp_path / "said").read_text()))
    assert "--cpus-per-task=6" in (tmp_path / "asked").read_text().split()
    job.send_signal(signal.SIGUSR1)
    assert job.wait(10) == 0
    assert (tmp_path / "said").read_text().endswith("stopped\n")
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_a_cancelled_slurm_job_stops_its_training_and_stays_out_of_the_queue(job, tmp_path: Path):
    job.terminate()
    assert job.wait(10) == 1
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize(
    ("wheels", "chosen"),
    [
        (("torch-2.15.0+cpu", "torch-2.14.1+cpu", "torch-2.14.1", "torchvision-0.29.1+cpu"), "2.14.1 0.29.1"),
        (("torch-2.13.0+cpu", "torchvision-0.28.0+cpu", "torch-2.15.0", "torchvision-0.30.0"), ""),
    ],
)
def test_without_a_gpu_the_cpu_only_torch_of_a_configured_index_is_chosen(
    wheels, chosen, tmp_path, capsys, monkeypatch
):
    for name in wheels:
        (tmp_path / f"{name}-py3-none-any.whl").touch()
    choose = runpy.run_path(str(DEPLOY / "choose_torch.py"))
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    choose["main"].__globals__["has_gpu"] = lambda: False
    choose["main"]()
    said, complaints = capsys.readouterr()
    assert re.findall(r"[\d.]+(?=\+cpu)", said) == chosen.split()
    assert ("CUDA's libraries come along" in complaints) == (not chosen)
