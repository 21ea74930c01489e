from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from diffusion_art.devices import computes_in_bf16, pick_device, widest
from diffusion_art.errors import UserError


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
