from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from diffusion_art.config import config_dir
from diffusion_art.devices import DTYPES, TORCHS_NAMES, computes_in_bf16, pick_device, precision_named, widest
from diffusion_art.errors import UserError
from diffusion_art.launching.settle import settled_precision
from diffusion_art.models.image_tower import Lite0
from diffusion_art.serving.engine.engine import autocast_dtype


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_a_device_that_is_there_is_taken(two_gpus):
    assert pick_device() == "cuda"
    assert [pick_device(name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]
    with pytest.raises(UserError, match="device=cuda:2 is not there: torch finds 2 here, cuda:0 to 1"):
        pick_device("cuda:2")


def test_a_device_that_is_not_there_gets_a_sentence(no_gpu):
    assert pick_device() == "cpu"
    for name in ("cuda", "mps", "xpu"):
        with pytest.raises(UserError, match=f"device={name} cannot be used: torch finds none here"):
            pick_device(name)
    with pytest.raises(UserError, match="device=abacus is no device"):
        pick_device("abacus")


@pytest.mark.parametrize(("major", "fast"), [(7, False), (8, True), (9, True)])
def test_a_gpu_that_only_emulates_bf16_computes_in_float32(two_gpus, monkeypatch, major, fast):
    """As torch does on Volta and Turing, a T4 for one, when asked without more words."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert computes_in_bf16(torch.device("cuda")) is fast


def test_sums_are_as_wide_as_the_device_can():
    assert [widest(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [torch.float64] * 2 + [torch.float32]


def test_a_precision_has_one_name_and_torchs_is_understood():
    for torchs, ours in TORCHS_NAMES.items():
        assert precision_named(torchs) == precision_named(ours) == ours
        assert DTYPES[ours] == getattr(torch, torchs)
    for names in (("bf16", "bfloat16"), ("fp32", "float32")):
        assert len({autocast_dtype(name, torch.device("cpu")) for name in names}) == 1
        assert len({Lite0(precision=name).precision for name in names}) == 1
        assert len({settled_precision(name, "cpu") for name in names}) == 1
    assert [settled_precision(name, "cpu") for name in ("bf16", "fp32", "64-true", 32)] == [
        *("bf16-mixed", "32-true", "64-true", 32)
    ]


def test_every_yaml_and_page_spells_precisions_so():
    pages = [*config_dir().rglob("*.yaml"), *(config_dir().parent / "docs").glob("*.md")]
    commands = {
        page.name: re.findall(r"(?:dtype|precision)[=:] ?b?float\d+", page.read_text("utf-8")) for page in pages
    }
    assert {name: found for name, found in commands.items() if found} == {}
