"""Compiled block by block a network is the same, blocks of one shape share the code, and failures say what to do."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from diffusion_art.accel import regions
from diffusion_art.errors import UserError
from diffusion_art.files import CACHE_VARIABLE
from diffusion_art.launching.settle import settled_compile
from tests.conftest import ROOT

SAME = """
import sys, torch
from copy import deepcopy
from torch._dynamo.utils import counters
from diffusion_art.accel.regions import compile_regions
from tests.models.backbones import BACKBONES, all_random, inputs

net = all_random(BACKBONES[sys.argv[1]](**eval(sys.argv[3]))).train()
plain = deepcopy(net)
blocks = compile_regions(net, net.regions, backend=sys.argv[2])
x_t, t, cond = inputs(side=net.sample_size)

def gradients(net):
    (net(x_t, t, cond) - 1).square().mean().backward()
    return {name: p.grad for name, p in net.named_parameters()}

close = {"atol": 1e-4, "rtol": 1e-3}
for found, wanted in zip(gradients(net).values(), gradients(plain).values(), strict=True):
    torch.testing.assert_close(found, wanted, **close)
made = counters["stats"]["unique_graphs"]
assert 0 < made < blocks, (made, blocks)
with torch.no_grad():
    assert torch.equal(net(x_t, t, cond), plain(x_t, t, cond))
    net(*inputs(2, side=net.sample_size))
place = next(iter(net.maps))
for found, wanted in zip(net.with_map(x_t, t, cond, place), plain.with_map(x_t, t, cond, place)):
    torch.testing.assert_close(found, wanted, **close)
copy = deepcopy(net)
assert all(block._compiled_call_impl is None for block in copy.modules())
assert counters["stats"]["unique_graphs"] == made, "a grid, a map or a copy was compiled anew"
"""


FAILS = """
from diffusion_art.accel.regions import compile_regions
from diffusion_art.errors import UserError
from tests.models.backbones import inputs, small_jit

def broken(graph, inputs):
    raise RuntimeError("no such instruction")

net = small_jit()
compile_regions(net, net.regions, backend=broken)
try:
    net(*inputs())
except UserError as error:
    said = str(error)
assert said == "Block could not be compiled (no such instruction). Train it as it is: compile=false.", said
"""


def run(*arguments: str, **environment: str) -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR_")}
    done = subprocess.run(
        [sys.executable, "-c", *arguments],
        cwd=ROOT,
        env={**others, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )  # outside the shape checker
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("unet", {"layers_per_block": 2}, id="unet"),
        pytest.param("unet", {"layers_per_block": 2, "gradient_checkpointing": True}, id="checkpointed"),
        pytest.param("jit", {}, id="jit"),
    ],
)
def test_blocks_alike_share_the_code_and_gradients_are_the_same(name, settings, tmp_path):
    run(SAME, name, "aot_eager", repr(settings), **{CACHE_VARIABLE: str(tmp_path)})


@pytest.mark.slow
def test_a_block_that_does_not_compile_says_how_to_train_without(tmp_path):
    run(FAILS, **{CACHE_VARIABLE: str(tmp_path)})


@pytest.mark.slow
@pytest.mark.longest
def test_so_are_they_by_inductor_which_keeps_what_it_made(tmp_path):
    run(SAME, "unet", "inductor", repr({"layers_per_block": 2}), **{CACHE_VARIABLE: str(tmp_path)})
    assert any((tmp_path / "inductor").rglob("*"))


@pytest.mark.parametrize(
    ("asked", "gpu", "max_steps", "settled"),
    [
        (False, True, 50_000, False),
        (True, False, 5, True),
        ("whole", True, 5, "whole"),
        ("auto", False, 50_000, False),
        ("auto", True, 50_000, True),
        ("auto", True, -1, True),
        ("auto", True, 999, False),
    ],
)
def test_auto_is_by_region_on_a_gpu_in_a_run_long_enough(monkeypatch, asked, gpu, max_steps, settled):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("diffusion_art.launching.settle.cannot_compile", lambda device: None)
    assert settled_compile(asked, "auto", max_steps) is settled or asked == settled == "whole"
    assert settled_compile("auto", "cpu", max_steps) is False


def test_without_a_compiler_auto_warns_and_true_is_refused(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert settled_compile("auto", "auto", 50_000) is False
    assert "not compiled, and trains slower: Triton" in caplog.text
    with pytest.raises(UserError, match=r"compile=true is not possible here: Triton .*compile=false"):
        settled_compile(True, "auto", 50_000)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"compile=whole is not possible here: there is no C\+\+ compiler"):
        settled_compile("whole", "cpu", 50_000)
    with pytest.raises(UserError, match="compile=fast is not known: choose auto"):
        settled_compile("fast", "auto", 50_000)


def test_what_is_compiled_is_kept_in_our_cache_unless_others_can_write_there(monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setenv(regions.CACHE_VARIABLE, "elsewhere")
    regions.keep_on_disk()
    assert os.environ[regions.CACHE_VARIABLE] == "elsewhere"
    for name in ("TORCHINDUCTOR_FX_GRAPH_CACHE", "TORCHINDUCTOR_AUTOGRAD_CACHE", regions.CACHE_VARIABLE):
        monkeypatch.setenv(name, "1")  # so that it is put back
        monkeypatch.delenv(name)
    (tmp_path / "inductor").mkdir()
    (tmp_path / "inductor").chmod(0o777)
    regions.keep_on_disk()
    assert regions.CACHE_VARIABLE not in os.environ
    assert "chmod 700" in caplog.text
    (tmp_path / "inductor").chmod(0o700)
    regions.keep_on_disk()
    assert os.environ[regions.CACHE_VARIABLE] == str(tmp_path / "inductor")
