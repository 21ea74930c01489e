"""A server starts and paints without torch's compiler, which is there for who asks later."""

from __future__ import annotations

import subprocess
import sys

import pytest

from diffusion_art.errors import UserError
from diffusion_art.runs import load_run
from diffusion_art.serving.engine import quick_start

PAINT = """
import sys
from contextlib import contextmanager
import diffusion_art.serve
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.runs import load_run
from diffusion_art.serving.engine import quick_start
from diffusion_art.serving.engine.engine import Engine

def paint(model):
    return model.generate(["red"], seeds=[1], sampler=Euler(num_steps=2), guidance_scale=2.0)

run = load_run(sys.argv[1])
"""
LEFT_OUT = """
model = quick_start.load_quickly(run)
Engine(model, cores=1)
quick = paint(model)
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]

import torch
compiled = torch.compile(model.denoise, backend="eager")
assert compiled is not model.denoise
import torch._dynamo
assert torch._dynamo.disable.__module__.startswith("torch._dynamo")
assert torch._dynamo.is_dynamo_supported()
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
assert torch.equal(quick, paint(load_run(sys.argv[1]).model))
"""
ASKED_FOR = """
@contextmanager
def broken():
    sys.modules["torch._dynamo"] = None  # every import of it fails, in the midst of diffusers
    try:
        yield
    finally:
        del sys.modules["torch._dynamo"]

quick_start.compiler_left_out = broken
paint(quick_start.load_quickly(run))
assert "torch._dynamo" in sys.modules
"""


@pytest.mark.parametrize(
    "then", [pytest.param(LEFT_OUT, id="left out", marks=pytest.mark.slow), pytest.param(ASKED_FOR, id="asked for")]
)
def test_a_model_is_loaded_and_paints(toy_folder, then):
    subprocess.run([sys.executable, "-c", PAINT + then, str(toy_folder)], check=True, timeout=120)


def test_where_the_compiler_is_loaded_it_stays():
    import torch._dynamo as real

    with quick_start.compiler_left_out():
        assert sys.modules["torch._dynamo"] is real
    assert sys.modules["torch._dynamo"] is real


def test_its_stand_ins_go_whatever_happens(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch._dynamo")]:
        monkeypatch.delitem(sys.modules, name)
    with quick_start.compiler_left_out():
        assert sys.modules["torch._dynamo"].disable(reason="none")(len) is len
        assert sys.modules["torch._dynamo"].allow_in_graph(len) is len
    with pytest.raises(ZeroDivisionError), quick_start.compiler_left_out():
        _ = 1 / 0
    assert "torch._dynamo" not in sys.modules
    assert "torch._dynamo.utils" not in sys.modules


def test_a_checkpoint_that_cannot_be_read_is_named_as_ever(tmp_path):
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"broken\.ckpt"):
        quick_start.load_quickly(load_run(broken))
