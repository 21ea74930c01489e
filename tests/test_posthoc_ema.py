"""From a run with snapshots to averages of other lengths: the real commands."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from diffusion_art.callbacks.snapshots import AverageSnapshots
from diffusion_art.checkpoints import KEY, find_checkpoint, load_text_to_image, read_checkpoint
from diffusion_art.errors import UserError
from diffusion_art.training.ema import Ema
from diffusion_art.training.posthoc import add_up, find_snapshots, mix, write_snapshot

TINY = ["+experiment=quickstart", "+debug=tiny", "data.source=null", "data.num_workers=0", "data.url=shards"]
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


def test_a_run_its_averages_and_what_is_painted_with_them(painter_shards, run_here, tmp_path):
    asked = [*TINY, *QUIET, f"data.path={painter_shards}", "ema=post_hoc", "callbacks.snapshots.dtype=fp32", "run=a"]
    folder = tmp_path / "logs/tiny/a"
    cut = [*asked, "callbacks.snapshots.every_n_steps=2", "lr_schedule=constant"]
    status, said, complaints = run_here("train", *cut, "trainer.max_steps=5")
    assert status == 0, said + complaints
    snapshots = folder / "snapshots"
    (snapshots / "step_00000009.safetensors").write_bytes(b"of a run that was killed")
    (snapshots / "step_00000009.part").write_bytes(b"half")
    status, said, complaints = run_here("train", *cut, "ckpt_path=last")
    assert status == 0, said + complaints
    assert [int(path.stem[5:]) for path in sorted(snapshots.iterdir())] == [2, 4, 5, 6, 8, 10, 12]

    saved = read_checkpoint(find_checkpoint(folder))[KEY]
    assert (saved["ema_name"], list(saved["averages"])) == ("decay_0.995", ["sigma_rel_0.05", "sigma_rel_0.1"])
    with safe_open(snapshots / "step_00000012.safetensors", framework="pt") as file:
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
    assert find_checkpoint(folder).name == "step_00000012.ckpt"
    status, said, complaints = run_here(
        "sample", f"run={folder}", "checkpoint=posthoc_0.2", "prompts=[red]", f"out={tmp_path / 'out'}"
    )
    assert status == 0, said + complaints
    assert (tmp_path / "out/grid.png").exists()

    for command, arguments, words in (
        ("posthoc_ema", [f"run={folder}", "sigma_rel=0.5"], "sigma_rel=0.5 is no width"),
        ("posthoc_ema", [f"run={folder}", "sigma_rel=0.1", "step=11"], "no snapshot of step 11"),
        ("sample", [f"run={folder}", "checkpoint=posthoc_0.2", "weights=raw"], "weights=raw are not in"),
        ("train", [*asked, f"ckpt_path={folder}/checkpoints/posthoc_0.1.ckpt"], "cannot be resumed"),
    ):
        status, said, complaints = run_here(command, *arguments)
        assert status == 1
        assert words in complaints
