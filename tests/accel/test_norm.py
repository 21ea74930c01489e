"""The fast twin of a group norm is the plain one: values, gradients, bits from run to run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from diffusion_art.accel import layers, switch
from diffusion_art.accel.layers import TokenNorm
from diffusion_art.accel.regions import cannot_compile
from tests.conftest import ROOT

needs_triton = pytest.mark.skipif(not switch.accelerates(), reason="Triton is not installed here")


def run(module: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )  # outside the shape checker, which changes the functions that Triton reads
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@needs_triton
def test_by_tritons_interpreter_it_is_the_plain_norm_forwards_and_backwards():
    run("tests.accel.norm_cases", TRITON_INTERPRET="1")


@pytest.mark.slow
@needs_triton
def test_the_kernels_compile_for_a_gpu_and_read_maps_16_bytes_at_a_time(tmp_path):
    run("tests.accel.norm_for_hopper", TRITON_CACHE_DIR=str(tmp_path))


def test_on_a_cpu_it_is_what_a_block_wrote_before_to_the_bit():
    net, x = nn.GroupNorm(4, 8), torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last)
    scale, shift = torch.randn(2, 16).chunk(2, dim=1)
    wanted = nn.functional.silu(net(x) * (1 + scale[:, :, None, None]) + shift[:, :, None, None])
    assert torch.equal(layers.group_norm(x, net, scale, shift, silu=True), wanted)
    conv = nn.Conv2d(8, 8, 3, padding=1)
    assert torch.equal(layers.conv_group_norm(x, conv, net), net(conv(x)))


def test_a_token_norm_on_a_cpu_is_torchs_layer_norm():
    theirs, x = nn.LayerNorm(6), torch.randn(2, 3, 6)
    ours = TokenNorm(theirs)
    nn.init.normal_(theirs.weight)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))


@needs_triton
def test_a_checker_of_shapes_leaves_the_kernels_to_triton():
    """Triton compiles by a function's own globals; in this process a checker wraps all others, so `test-gpu` too."""
    from triton.runtime.jit import JITFunction

    from diffusion_art.accel import norm_kernels

    kernels = [each for each in vars(norm_kernels).values() if isinstance(each, JITFunction)]
    assert len(kernels) == 11
    assert all(kernel.fn.__globals__ is vars(norm_kernels) for kernel in kernels)


@pytest.mark.parametrize("lacking", ["Triton", "C compiler", "Python.h"])
def test_without_what_triton_builds_with_the_plain_norm_runs(monkeypatch, tmp_path, lacking):
    """Triton compiles a launcher in C for each kernel: without a compiler or headers the first one would raise."""
    (tmp_path / "Python.h").touch()
    headers = tmp_path / "none" if lacking == "Python.h" else tmp_path
    compiler = None if lacking == "C compiler" else "/usr/bin/gcc"
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv(switch.VARIABLE, raising=False)
    monkeypatch.setattr(switch.shutil, "which", lambda name: "/usr/bin/gcc")
    monkeypatch.setattr(switch.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(switch, "find_spec", lambda name: name)
    assert switch.accelerates()
    monkeypatch.setattr(switch.shutil, "which", lambda name: compiler)
    monkeypatch.setattr(switch.sysconfig, "get_paths", lambda: {"include": str(headers)})
    monkeypatch.setattr(switch, "find_spec", lambda name: None if lacking == "Triton" else name)
    assert not switch.accelerates()
    assert lacking in (cannot_compile("cuda") or "")


@pytest.mark.parametrize(("value", "on"), [("0", False), ("false", False), ("1", True), (None, True)])
def test_the_environment_switches_it_off(monkeypatch, value, on):
    monkeypatch.delenv(switch.VARIABLE, raising=False)
    monkeypatch.setattr(switch, "triton_lacks", lambda: None)
    if value is not None:
        monkeypatch.setenv(switch.VARIABLE, value)
    assert switch.accelerates() is on
    monkeypatch.setattr(switch, "triton_lacks", lambda: "Triton is not installed")
    assert not switch.accelerates()
