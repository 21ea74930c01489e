"""The doctor tells what a bug report needs, and nothing that is private."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import pytest
import torch

from diffusion_art.diagnosis import devices, machine
from diffusion_art.diagnosis.finding import Finding, without_names
from diffusion_art.doctor import possible, text


def test_it_tells_people_and_programs_the_same_and_nothing_private(run_here, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "annemarie"))
    monkeypatch.setenv("USER", "annemarie")
    monkeypatch.setenv("LOGNAME", "annemarie")
    monkeypatch.setenv("WANDB_API_KEY", "sesame0123456789")
    monkeypatch.setenv("HF_TOKEN", "hf_sesame")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/annemarie")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(machine, "PATIENCE_S", 0.2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    status, said, complaints = run_here("doctor", "format=json")
    assert status == 0, complaints
    told = json.loads(said)
    assert told["possible"] is True
    names = {finding["name"] for section in told.values() if isinstance(section, list) for finding in section}
    assert {"python", "torch", "processor", "memory", "cpu multiplies", "pictures", "data", "hub", "wandb"} <= names
    rates = next(finding["value"] for finding in told["devices"] if finding["name"] == "cpu multiplies")
    assert "FLOP/s in float32" in rates
    assert "torch uses 7" in said
    status, for_people, _ = run_here("doctor")
    assert status == 0
    assert "- hub: the hub of HF_ENDPOINT cannot be reached\n    the quickstart needs none" in for_people
    for secret in ("annemarie", "sesame", str(tmp_path)):
        assert secret not in said + for_people


def test_a_mistake_is_one_sentence(run_here):
    status, _, complaints = run_here("doctor", "format=xml")
    assert status == 1
    assert complaints == "error: format=xml is not known: choose text or json.\n"


def test_what_makes_training_impossible_comes_first_and_is_the_status(run_here, monkeypatch):
    monkeypatch.setattr("diffusion_art.diagnosis.versions.requires_of", lambda name: ["torch>=2", "no-such-library>=3"])
    monkeypatch.setattr(machine, "PATIENCE_S", 0.2)
    status, said, _ = run_here("doctor")
    assert status == 1
    helps = said.partition("what helps\n")[2]
    assert helps.startswith("X no-such-library: not installed\n    python -m pip install no-such-library")


def test_a_port_that_is_taken_and_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(machine, "PORT", server.getsockname()[1])
        assert machine._port().value == "taken"
    monkeypatch.setattr(machine, "_written", lambda *_: (_ for _ in ()).throw(PermissionError()))
    found = machine.disks({"logs": tmp_path})
    assert [finding.state for finding in found] == ["impossible", "missing"]
    assert not possible({"disks": found})
    assert "paths.log_dir=FOLDER" in text({"disks": found})


def test_a_device_that_is_full_is_told_of(monkeypatch):
    monkeypatch.setitem(devices.SIDE, "cpu", 10**7)  # 400 TB
    found = devices._rates(torch.device("cpu"))
    assert (found.value, found.state) == ("no memory was free to measure", "slow")

    def full(index: int) -> tuple[int, int]:
        raise torch.OutOfMemoryError("CUDA error: out of memory")

    about = SimpleNamespace(name="H200", total_memory=150e9, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: about)
    monkeypatch.setattr(torch.cuda, "mem_get_info", full)
    first, second = devices._gpu(0)
    assert first.value.startswith("H200, 150 GB, CUDA ")
    assert (second.name, second.value) == ("GPU 0", "no memory was free to measure")


@pytest.mark.parametrize("word", ["annemarie", "/home/annemarie", "box-annemarie-1 by annemarie"])
def test_names_are_left_out(monkeypatch, word):
    monkeypatch.setenv("HOME", "/home/annemarie")
    monkeypatch.setenv("LOGNAME", "annemarie")
    told = without_names(Finding("x", f"at {word}.", advice=word))
    assert "annemarie" not in (told.value + told.advice).replace("box-annemarie-1", "")
