"""From a run with snapshots to averages of other lengths: the real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from diffusion_art.callbacks.snapshots import AverageSnapshots
from diffusion_art.checkpoints import find_checkpoint, load_text_to_image, read_checkpoint
from diffusion_art.errors import UserError
from diffusion_art.record import KEY
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.averages.posthoc import add_up, find_snapshots, mix, up_to, write_snapshot
from diffusion_art.training.run.resume import checked_resume
from tests.conftest import ROOT

TINY = ["+experiment=quickstart32", "+debug=tiny", "data.source=null", "data.num_workers=0", "data.url=shards"]
QUIET = ["callbacks.progress=null", "callbacks.samples=null", "callbacks.loss_plot=null", "data.val_samples=8"]


def _snapshots(folder, *, updates: int, every: int, dtype: str) -> Ema:
    """Snapshots of a module's walk; returns the averages, of which the third is none of the snapshots'."""
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    ema = Ema(net, decay=[], sigma_rel=[0.05, 0.1, 0.15])
    widths = {"sigma_rel_0.05": 0.05, "sigma_rel_0.1": 0.1}
    for step in range(1, updates + 1):
        with torch.no_grad():
            net.weight.lerp_(torch.randn(2, 3), 0.05)
        ema.update()
        if step % every == 0:
            write_snapshot(folder, ema.averages, widths=widths, step=step, updates=ema.updates, dtype=dtype)
    return ema


@pytest.mark.parametrize(("dtype", "within"), [("fp32", 1e-5), ("fp16", 1e-3)])
def test_what_is_made_of_files_is_what_was_tracked(tmp_path, dtype, within):
    ema = _snapshots(tmp_path, updates=400, every=8, dtype=dtype)
    snapshots = find_snapshots(tmp_path)
    assert [snapshot.step for snapshot in snapshots] == list(range(8, 401, 8))
    widths = (0.05, 0.1, 0.15)
    for width, weights in zip(widths, add_up(snapshots, [mix(snapshots, sigma_rel=width) for width in widths])):
        tracked = ema.averages[f"sigma_rel_{width:g}"]
        tolerance = within + (2e-4 if width == 0.15 else 0.0)
        for name in ("weight", "bias"):
            torch.testing.assert_close(weights[name], tracked[name], atol=tolerance, rtol=0)


def test_a_torn_snapshot_is_left_out_and_one_of_another_model_refused(tmp_path, caplog):
    _snapshots(tmp_path, updates=30, every=10, dtype="fp32")
    torn = tmp_path / "step_00000020.safetensors"
    torn.write_bytes(torn.read_bytes()[:-8])
    assert [snapshot.step for snapshot in find_snapshots(tmp_path)] == [10, 30]
    assert "step_00000020.safetensors cannot be read" in caplog.text
    widths = {"sigma_rel_0.1": 0.1}
    write_snapshot(tmp_path, {"sigma_rel_0.1": {"else": torch.zeros(1)}}, widths=widths, step=20, updates=20)
    snapshots = find_snapshots(tmp_path)
    with pytest.raises(UserError, match="belongs to another model"):
        add_up(snapshots, [mix(snapshots, sigma_rel=0.1)])


def test_a_weight_that_fp16_cannot_hold_is_not_written(tmp_path):
    averages, widths = {"a": {"w": torch.tensor([1e6])}}, {"a": 0.1}
    with pytest.raises(UserError, match="w is not finite in fp16 at step 7"):
        write_snapshot(tmp_path, averages, widths=widths, step=7, updates=7)
    assert write_snapshot(tmp_path, averages, widths=widths, step=7, updates=7, dtype="fp32").stat().st_size > 0
    with pytest.raises(UserError, match="fp8"):
        AverageSnapshots(folder=str(tmp_path), dtype="fp8")


@pytest.fixture
def asked(painter_shards) -> list[str]:
    return [*TINY, *QUIET, f"data.path={painter_shards}", "ema=post_hoc", "callbacks.snapshots.dtype=fp32", "run=a"]


def _steps(folder) -> list[int]:
    return [int(path.stem[5:]) for path in sorted(folder.iterdir())]


@pytest.mark.slow
def test_a_run_its_averages_and_what_is_painted_with_them(asked, run_here, tmp_path):
    folder = tmp_path / "logs/tiny/a"
    status, said, complaints = run_here("train", *asked, "trainer.max_steps=5", "callbacks.snapshots.every_n_steps=2")
    assert status == 0, said + complaints
    assert _steps(folder / "snapshots") == [2, 4, 5]
    saved = read_checkpoint(find_checkpoint(folder))[KEY]
    assert (saved["ema_name"], list(saved["averages"])) == ("decay_0.995", ["sigma_rel_0.05", "sigma_rel_0.1"])
    with safe_open(folder / "snapshots/step_00000005.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["widths"]) == {"sigma_rel_0.05": 0.05, "sigma_rel_0.1": 0.1}
        for key in file.keys():  # noqa: SIM118 - not a dict
            average, _, name = key.partition("/")
            assert torch.equal(file.get_tensor(key), saved["averages"][average][name])

    status, said, complaints = run_here("posthoc_ema", f"run={folder}", "sigma_rel=[0.1,0.2]")
    assert status == 0, said + complaints
    made = load_text_to_image(folder / "checkpoints/posthoc_0.1.ckpt").trainable_state()
    tracked = load_text_to_image(folder, weights="sigma_rel_0.1").trainable_state()
    used = load_text_to_image(folder).trainable_state()
    for name, weight in tracked.items():
        torch.testing.assert_close(made[name], weight, atol=1e-6, rtol=0)
    assert any(not torch.equal(used[name], tracked[name]) for name in used)
    assert find_checkpoint(folder).name == "step_00000005.ckpt"
    with pytest.raises(UserError, match=r"weights=raw are not in .*; it has ema, sigma_rel_0\.2"):
        load_text_to_image(folder / "checkpoints/posthoc_0.2.ckpt", weights="raw")
    with pytest.raises(UserError, match="cannot be resumed"):
        checked_resume(str(folder / "checkpoints/posthoc_0.2.ckpt"), folder)
    with pytest.raises(UserError, match=r"no snapshot of step 3\..* such as step=[24]"):
        up_to(find_snapshots(folder / "snapshots"), 3, run=folder)
    status, said, complaints = run_here(
        "sample", f"run={folder}", "checkpoint=posthoc_0.2", "prompts=[red]", f"out={tmp_path / 'out'}"
    )
    assert status == 0, said + complaints
    assert (tmp_path / "out/grid.png").exists()


@pytest.mark.slow
def test_snapshots_of_a_resumed_run_are_those_of_a_whole_one(asked, run_here, tmp_path):
    asked += ["callbacks.snapshots.every_n_steps=4"]
    asked += ["lr_schedule=constant", "alignment=none"]  # either would end with trainer.max_steps
    status, said, complaints = run_here("train", *asked, "run=whole")
    assert status == 0, said + complaints
    assert run_here("train", *asked, "trainer.max_steps=6")[0] == 0
    whole, cut = (tmp_path / "logs/tiny" / name / "snapshots" for name in ("whole", "a"))
    (cut / "step_00000009.safetensors").write_bytes(b"of steps after the last checkpoint")
    (cut / "step_00000009.part").write_bytes(b"half of one")
    status, said, complaints = run_here("train", *asked, "ckpt_path=last")
    assert status == 0, said + complaints
    assert (_steps(whole), _steps(cut)) == ([4, 8, 12], [4, 6, 8, 12])
    for step in (4, 8, 12):
        one, other = (load_file(folder / f"step_{step:08d}.safetensors") for folder in (whole, cut))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.longest
def test_a_killed_run_leaves_whole_snapshots_and_ends_in_those_of_one_that_was_not(asked, run_here, tmp_path):
    """SIGKILL wherever it falls, twice."""
    asked += ["callbacks.snapshots.every_n_steps=1", "trainer.max_steps=60", "callbacks.checkpoints.every_n_steps=10"]
    status, said, complaints = run_here("train", *asked, "run=whole")
    assert status == 0, said + complaints
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    whole, cut = (tmp_path / "logs/tiny" / name / "snapshots" for name in ("whole", "a"))
    command = [sys.executable, "-m", "diffusion_art.train", *asked]
    for extra, least in (([], 5), (["ckpt_path=auto"], 20)):
        child = subprocess.Popen([*command, *extra], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        while len(list(cut.glob("*.safetensors"))) < least:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        child.kill()
        child.wait()
        left = [snapshot.step for snapshot in find_snapshots(cut)]
        assert left == list(range(1, len(left) + 1))
        assert len(left) < 60
    assert run_here("train", *asked, "ckpt_path=auto")[0] == 0
    assert _steps(whole) == _steps(cut) == list(range(1, 61))
    for step in range(1, 61):
        one, other = (load_file(folder / f"step_{step:08d}.safetensors") for folder in (whole, cut))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
