"""A run folder belongs to one run at a time, and runs without a name do not meet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.launching.names import fresh_folder, register, run_stamp
from diffusion_art.training.run.run_folder import HELD_VARIABLE, drop_if_bare, has_finished, held, is_held, is_new
from tests.conftest import ROOT

HOLD = (
    "import sys, time; from pathlib import Path; from diffusion_art.training.run.run_folder import held\n"
    "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)

DROP = (
    "import sys; from pathlib import Path; from diffusion_art.training.run.run_folder import drop_if_bare\n"
    "drop_if_bare(Path(sys.argv[1]))"
)


def _holder(folder: Path) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, text=True, **pipes)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_run_that_goes_on_keeps_its_folder_and_a_killed_one_leaves_it(tmp_path, monkeypatch):
    assert is_held(tmp_path / "run") is False
    with _holder(tmp_path / "run") as holder:
        assert is_held(tmp_path / "run")
        with (
            pytest.raises(UserError, match=rf"is being trained by process {holder.pid} on .*run=NAME"),
            held(tmp_path / "run"),
        ):
            pass
        monkeypatch.setenv(HELD_VARIABLE, str((tmp_path / "run").resolve()))
        with held(tmp_path / "run"):  # one of its own processes
            pass
        monkeypatch.delenv(HELD_VARIABLE)
        holder.kill()
    assert is_held(tmp_path / "run") is False
    with held(tmp_path / "run"):
        pass


def _fail_in_training(folder: Path) -> None:
    (folder / "metrics.csv").write_text("step,train/loss\n0,nan\n")
    raise UserError("the loss became nan")


def test_a_run_that_came_to_its_end_says_so_until_it_goes_on(tmp_path):
    assert not has_finished(tmp_path / "run")
    with held(tmp_path / "run"):
        assert not has_finished(tmp_path / "run")
    assert has_finished(tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run"), held(tmp_path / "run"):
        raise UserError("it already holds a run")
    assert has_finished(tmp_path / "run")
    with pytest.raises(UserError, match="the loss became nan"), held(tmp_path / "run"):
        _fail_in_training(tmp_path / "run")
    assert not has_finished(tmp_path / "run")


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(tmp_path):
    stamp = run_stamp()
    folders = [fresh_folder(str(tmp_path / "logs" / stamp)) for _ in range(3)]
    assert [Path(folder).name for folder in folders] == [stamp, f"{stamp}-2", f"{stamp}-3"]
    assert all(os.path.isdir(folder) for folder in folders)  # noqa: PTH112


@pytest.mark.parametrize("folder", ["run", "sweep"])
def test_commands_that_start_together_have_folders_of_their_own(folder, tmp_path):
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        asked = [f"paths.log_dir={tmp_path}", "prompts=[red]"]
        started = [compose("train", overrides=asked, return_hydra_config=True) for _ in range(2)]
    one, other = (config.hydra[folder].dir for config in started)
    assert one != other
    assert Path(one).is_dir()
    assert Path(other).is_dir()


def test_a_name_that_was_typed_is_taken_as_it_is(tmp_path):
    name = str(tmp_path / "logs" / "2026-01-02_03-04-05")
    assert [fresh_folder(name) for _ in range(2)] == [name, name]
    assert not Path(name).exists()


def test_a_run_that_is_refused_leaves_no_folder_and_its_name_is_free(painter_shards, run_here, tmp_path):
    tiny = ["+experiment=quickstart32", "+debug=tiny", "data.source=null", "callbacks.progress=null"]
    asked = [*tiny, f"data.path={painter_shards}", "data.num_workers=0", "callbacks.samples=null"]
    for word in ("run=a", "run=../up"):
        status, _, complaints = run_here("train", *asked, word, "optim.lr=-1" if word == "run=a" else "seed=1")
        assert (status, complaints.count("error: ")) == (1, 1)
        assert "out of range" in complaints
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert run_here("train", *asked, "run=a", "trainer.max_steps=1")[0] == 0
    assert run_here("train", *asked, "run=a", "trainer.max_steps=1")[0] == 1
    assert (tmp_path / "logs/tiny/a/checkpoints/last.ckpt").exists(), "a run that is there stays"


def test_a_folder_that_holds_more_stays(tmp_path):
    folder = tmp_path / "logs/a"
    (folder / ".hydra").mkdir(parents=True)
    assert is_new(folder)
    (folder / "metrics.csv").touch()
    drop_if_bare(folder)
    assert folder.exists()
    (folder / "train.log").write_text("run: logs/a\n")
    assert not is_new(folder)


@pytest.mark.slow
def test_what_is_refused_when_its_data_are_read_leaves_no_folder_and_a_saved_config_begins_no_run(
    run_here, painter_shards, tmp_path
):
    asked = ["+experiment=quickstart32", "+debug=tiny", f"data.path={painter_shards}", "data.source=null"]
    asked += ["data.url=shards", "data.num_workers=0", "callbacks.samples=null", "callbacks.progress=null"]
    assert run_here("train", *asked, "run=a", "trainer.max_steps=1")[0] == 0
    status, said, complaints = run_here("train", *asked, "run=b", "+optim.lrr=3")
    assert (status, "data: " in said) == (1, True)
    assert "Muon does not take optim.lrr: " in complaints
    assert not (tmp_path / "logs/tiny/b").exists()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    status, _, complaints = run_here("train", "--config-dir=logs/tiny/a", "--config-name=config", "run=c")
    assert status == 1
    assert "this config has no `defaults`, as the one that a run has saved" in complaints
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_a_folder_that_another_process_has_stays(tmp_path):
    folder = tmp_path / "logs/a"
    with held(folder):
        subprocess.run([sys.executable, "-c", DROP, str(folder)], check=True, cwd=ROOT)
        assert folder.exists()
    drop_if_bare(folder)
    assert not folder.parent.exists()


@pytest.mark.slow
def test_a_folder_that_is_moved_in_mid_run_is_told(run_here, painter_shards, monkeypatch, tmp_path):
    (tmp_path / "own_mover.py").write_text(
        "from pathlib import Path\nfrom lightning.pytorch.callbacks import Callback\nclass Mover(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step == 4: Path('logs/tiny/a').rename('logs/tiny/b')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DIFFUSION_ART_PARTS", "own_mover")
    words = ["+experiment=quickstart32", "+debug=tiny", f"data.path={painter_shards}", "data.source=null", "run=a"]
    words += ["data.url=shards", "data.num_workers=0", "callbacks.samples=null"]
    status, _, complaints = run_here("train", *words, "+callbacks.mover._target_=own_mover.Mover")
    assert status == 1
    assert "logs/tiny/a has gone while the run wrote there. If it was moved, go on" in complaints
    assert not (tmp_path / "logs/tiny/a").exists()
