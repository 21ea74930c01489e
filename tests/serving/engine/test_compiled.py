"""The compiled network paints what the network as it is paints, is made once, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_art.accel.ahead_of_time import CompiledNetwork
from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M
from diffusion_art.diffusion.samplers.euler import Euler, Heun
from diffusion_art.errors import UserError
from diffusion_art.files import CACHE_VARIABLE
from diffusion_art.runs import Run, load_run
from diffusion_art.serving.engine.compile_network import check
from diffusion_art.serving.engine.compiled import (
    KEPT,
    STALE_S,
    Compilation,
    check_compiler,
    check_ours,
    clear,
    fingerprint,
    worth_trying,
)
from diffusion_art.serving.engine.engine import Engine, Job
from tests.fakes import toy_model, toy_run
from tests.serving.raw import eventually

JOBS = [
    Job("red", seed=1, sampler=Euler(num_steps=3)),  # one row
    Job("blue and longer, of more tokens", seed=2, sampler=DPMSolverPP2M(num_steps=4), guidance_scale=3.0),
    Job("red", seed=3, sampler=Heun(num_steps=3), guidance_scale=2.0),
]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


def engine_of(run: Run) -> Engine:
    return Engine(run.model, max_rows=6, precision="fp32")


def paintings(engine: Engine) -> list[np.ndarray]:
    """Each job alone, then all together."""
    alone = [engine.submit([job])[0].result.result(60) for job in JOBS]
    return alone + [ticket.result.result(60) for ticket in engine.submit(JOBS)]


@pytest.mark.slow
@pytest.mark.longest
def test_compiled_once_it_paints_the_same(toy_folder, cache, caplog):
    caplog.set_level(logging.INFO, "diffusion_art")
    run = load_run(toy_folder)
    engine = engine_of(run)
    engine.start()
    try:
        as_it_is = paintings(engine)
        assert engine.stats().painting_s > 0
        first = Compilation(run, engine, after_s=engine.stats().painting_s)
        first.start()
        assert eventually(lambda: engine.stats().compiled, within_s=600), caplog.text
        first.stop()
        for found, wanted in zip(paintings(engine), as_it_is, strict=True):
            assert np.abs(found.astype(int) - wanted).max() <= 1
        assert engine.stats().failed == 0
        (made,) = cache.iterdir()
        began = made.stat().st_ino
        caplog.clear()
        again = engine_of(run)
        second = Compilation(run, again)
        second.start()
        assert eventually(lambda: again.stats().compiled, within_s=60)
        second.stop()
        assert made.stat().st_ino == began
        assert "compiling the network" not in caplog.text
        compiled = CompiledNetwork(made, dtype=torch.float32)
        check(run.model, compiled, rows=6)
        with torch.no_grad():
            for weight in run.model.backbone.parameters():
                weight.mul_(1.1)
        with pytest.raises(RuntimeError, match="% off"):
            check(run.model, compiled, rows=6)
    finally:
        engine.stop()


@pytest.mark.slow
def test_what_does_not_compile_is_said_and_painting_goes_on(tmp_path, cache, caplog):
    folder = toy_run(tmp_path / "run")
    run = load_run(folder)
    engine = engine_of(run)
    engine.start()
    try:
        _ = run.model
        run.checkpoint.resolve().unlink()  # the other process will not find it
        compilation = Compilation(run, engine)
        compilation.start()
        assert eventually(lambda: "paints as it is" in caplog.text, within_s=120)
        compilation.stop()
        assert str(run.checkpoint.resolve().name) in caplog.text
        assert not engine.stats().compiled
        assert paintings(engine)
        assert not list(cache.iterdir())
    finally:
        engine.stop()


@pytest.mark.slow
def test_stopped_while_it_compiles_it_leaves_nothing(toy_folder, cache, caplog):
    run = load_run(toy_folder)
    compilation = Compilation(run, engine_of(run))
    compilation.start()
    assert eventually(lambda: compilation._process is not None, within_s=30)
    assert compilation._process is not None
    assert os.getsid(compilation._process.pid) == os.getsid(0)  # in which alone a low priority counts
    began = time.monotonic()
    compilation.stop()
    assert time.monotonic() - began < 10
    assert not list(cache.iterdir())
    assert "paints as it is" not in caplog.text


def test_unasked_it_waits_until_the_engine_has_painted(toy_folder, cache, caplog):
    run = load_run(toy_folder)
    engine = engine_of(run)
    engine.start()
    compilation = Compilation(run, engine, after_s=3600)
    compilation.start()
    try:
        assert paintings(engine)
        assert 0 < engine.stats().painting_s < 3600
        assert eventually(cache.is_dir, within_s=30)
        assert compilation._process is None
    finally:
        compilation.stop()
        engine.stop()
    assert not list(cache.iterdir())
    assert "paints as it is" not in caplog.text


def test_unasked_it_takes_a_compiler_and_room(monkeypatch, tmp_path):
    (tmp_path / "c++").touch(mode=0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    monkeypatch.setattr("diffusion_art.serving.engine.compiled.ROOM_BYTES", 0)
    assert worth_trying("cpu")
    assert not worth_trying("meta")
    monkeypatch.setattr("diffusion_art.serving.engine.compiled.ROOM_BYTES", 2**60)
    assert not worth_trying("cpu")
    monkeypatch.setattr("diffusion_art.serving.engine.compiled.ROOM_BYTES", 0)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not worth_trying("cpu")


def test_without_a_compiler_or_for_a_gpu_it_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install g"):
        check_compiler(torch.device("cpu"))
    with pytest.raises(UserError, match="device=meta"):
        check_compiler(torch.device("meta"))
    compiler = tmp_path / "my-c++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(compiler))
    check_compiler(torch.device("cpu"))


def test_a_fingerprint_names_all_that_counts():
    model, config = toy_model(), {"model": {"a": 1}}
    own = fingerprint(model, config, torch.float32, 64)
    assert fingerprint(model, config, torch.float32, 64) == own
    others = [
        fingerprint(model, config, torch.bfloat16, 64),
        fingerprint(model, config, torch.float32, 32),
        fingerprint(model, {"model": {"a": 2}}, torch.float32, 64),
    ]
    with torch.no_grad():
        list(model.backbone.parameters())[-1].add_(1e-3)
    others.append(fingerprint(model, config, torch.float32, 64))
    assert len({own, *others}) == 5


def test_the_cache_keeps_those_used_last_and_no_ruins(tmp_path):
    for age in range(KEPT + 3):
        path = tmp_path / f"{age}.so"
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    for name, age_s in (("building-new", 0.0), ("building-old", STALE_S + 60)):
        (tmp_path / name / "inner").mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - age_s, time.time() - age_s))
    clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{age}.so" for age in range(KEPT)} | {"building-new"}


def test_a_folder_that_others_write_to_is_not_loaded_from(tmp_path):
    tmp_path.chmod(0o700)
    check_ours(tmp_path)
    tmp_path.chmod(0o770)
    with pytest.raises(RuntimeError, match=f"chmod 700 {tmp_path}"):
        check_ours(tmp_path)
