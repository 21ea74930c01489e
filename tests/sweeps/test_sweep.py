"""The real command: a search that fails, prunes, is killed and goes on; Hydra's launchers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import DictConfig
from optuna.trial import TrialState
from PIL import Image

from diffusion_art.launching.compare import comparison
from diffusion_art.sweeps.study import ERROR, open_study
from diffusion_art.training.run.run_folder import LOCK_FILE, is_held
from hydra_plugins.diffusion_art_optuna.sweeper import OptunaSweeper
from tests.fakes import toy_model, write_checkpoint
from tests.sweeps.test_study import search
from tests.test_train import TINY, _start, _wait_for

SHORT = ("callbacks.loss_plot=null", "callbacks.throughput=null", "data.num_workers=0", "alignment=none", "optim=adamw")


@pytest.fixture
def tiny(painter_shards) -> list[str]:
    return [*TINY, *SHORT, f"data.path={painter_shards}"]


AUTOENCODER = {"_target_": "diffusion_art.models.autoencoder.Autoencoder"}
SWEEP = ("+sweep=optuna", "run=first", "hydra/sweeper/sampler=grid")


def test_the_last_line_of_a_multi_run_compares_its_runs(tmp_path):
    assert comparison(tmp_path / "none") is None
    for number in (0, 10, 2):
        (tmp_path / str(number) / "checkpoints").mkdir(parents=True)
        assert comparison(tmp_path) is None
    for number in (0, 10, 2):
        (tmp_path / str(number) / "checkpoints/last.ckpt").touch()
    said = comparison(tmp_path)
    assert said is not None
    assert f"diffusion_art.evaluate 'run=[{tmp_path}/0,{tmp_path}/2,{tmp_path}/10]'" in said
    assert f"diffusion_art.watch logs={tmp_path}" in said
    for number in (0, 2):  # an autoencoder paints nothing to be measured
        write_checkpoint(tmp_path / str(number) / "checkpoints/last.ckpt", toy_model(), config={"model": AUTOENCODER})
    assert comparison(tmp_path) == f"their curves: python -m diffusion_art.watch logs={tmp_path}"
    (tmp_path / "report.md").touch()
    assert f"compared in {tmp_path}/report.md" in (comparison(tmp_path) or "")


@pytest.mark.slow
def test_a_trial_that_fails_is_kept_as_failed_and_nothing_is_tried_again(tiny, run_here, tmp_path):
    asked = [*tiny, *SWEEP, "trainer.max_steps=2", "trainer.val_check_interval=2", "optim.lr=1e18,1e-3"]
    status, said, complaints = run_here("train", *asked)
    assert status == 1, said + complaints
    failed = re.search(r"error: 1 of the 2 trials failed:\n  #(\d) optim\.lr=1e\+18: the loss became ", complaints)
    assert failed, complaints
    folder = tmp_path / "logs/tiny/sweep_first"
    table = pd.read_csv(folder / "trials.csv")
    assert dict(zip(table["lr"], table["state"])) == {1e18: "failed", 1e-3: "complete"}
    assert table["val/loss"].notna().tolist() == (table["state"] == "complete").tolist()
    whole = int(table.loc[table["state"] == "complete", "trial"].item())
    assert (folder / str(whole) / "checkpoints/last.ckpt").exists()
    assert f"![contact sheet]({'contact_sheet.png'})" in (folder / "report.md").read_text()
    for picture in ("contact_sheet.png", "parallel_coordinates.png"):
        with Image.open(folder / picture) as drawn:
            assert min(drawn.size) > 200
    changed = (folder / str(whole) / "checkpoints/last.ckpt").resolve().stat().st_mtime
    status, said, complaints = run_here("train", *asked)
    assert status == 1
    assert len(pd.read_csv(folder / "trials.csv")) == 2
    assert (folder / str(whole) / "checkpoints/last.ckpt").resolve().stat().st_mtime == changed
    status, _, complaints = run_here("train", *asked, "optim.betas=[0.5,0.9]")
    assert status == 1
    assert "was started with another command; this one is with optim.betas=[0.5,0.9]" in complaints


@pytest.mark.slow
def test_choices_that_do_not_go_together_fail_alone(tiny, run_here, tmp_path):
    params = 'hydra.sweeper.params={model.schedule: "choice({shift:1.0},{zero_terminal_snr:true})"}'
    asked = [*tiny, *SWEEP, "hydra.sweeper.n_jobs=4", params, "model/schedule=choice(cosine,flow)"]
    asked += ["trainer.max_steps=1", "trainer.val_check_interval=1", "callbacks.samples=null"]
    status, said, complaints = run_here("train", *asked)
    assert status == 1, said + complaints
    assert "error: 1 of the 4 trials failed:" in complaints
    folder = tmp_path / "logs/tiny/sweep_first"
    trials = open_study(folder).get_trials()
    (failed,) = (trial for trial in trials if trial.state is TrialState.FAIL)
    assert failed.params["model/schedule"] == "flow"  # which has no zero_terminal_snr
    assert "model.schedule" in failed.user_attrs[ERROR]
    whole = [trial.number for trial in trials if trial.state is TrialState.COMPLETE]
    assert len(whole) == 3
    assert all((folder / str(number) / "checkpoints/last.ckpt").exists() for number in whole)


@pytest.mark.slow
def test_a_pruned_trial_ends_with_its_checkpoint_and_its_pictures(tiny, run_here, tmp_path):
    """By a pruner to which no loss is low enough."""
    threshold = ["pruner._target_=optuna.pruners.ThresholdPruner", "~pruner.n_startup_trials", "+pruner.upper=0.001"]
    asked = [*tiny, "+sweep=optuna", "run=first", "trainer.max_steps=12", "trainer.val_check_interval=3", *threshold]
    asked += ["optim.lr=interval(1e-4,1e-3)", "hydra.sweeper.n_trials=1", "callbacks.checkpoints.every_n_steps=0"]
    status, said, complaints = run_here("train", *asked)
    assert status == 0, said + complaints
    assert "pruned at step 3: val/loss is " in said
    folder = tmp_path / "logs/tiny/sweep_first"
    (trial,) = open_study(folder).get_trials()
    assert trial.state is TrialState.PRUNED
    assert trial.value == pytest.approx(pd.read_csv(folder / "0/metrics.csv")["val/loss"].dropna().item())
    assert [file.name for file in (folder / "0/checkpoints").glob("step*")] == ["step_00000003.ckpt"]
    assert (folder / "0/samples/step_00000003.png").exists()
    assert "| pruned |" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["optim.lr=1e-3"], "there is nothing to search: give a key several values"),
        (["model/schedule=choice(flow,cosin)"], "there is no `cosin` in the config group `model/schedule`"),
        (["optim.lr=tag(log,interval(0,1))"], "begins at 0"),
        (["optim.lr=interval(0,1)", "optimized_metric=train/lr"], "hydra.sweeper.direction=minimize"),
        (["optim.lr=interval(0,1)", "pruner._target_=os.system"], "os.system"),
        (["optim.lr=interval(0,1)", "hydra/sweeper/sampler=grid"], "give range(...)"),
        (["optim.lr=interval(0,1)", "hydra.sweeper.n_jobs=0"], "n_jobs=0 must be a whole number from 1 on"),
        (["optim.lr=interval(0,1)", "hydra.sweeper.n_jobs=-1"], "n_jobs=-1 must be a whole number from 1 on"),
        (["optim.lr=interval(0,1)", "hydra.sweeper.n_trials=0"], "n_trials=0 must be a whole number from 1 on"),
        (
            ["optim.lr=interval(0,1)", "optimized_metric=val/los"],
            "whether more is better. Did you mean val/loss? Else say",
        ),
        (["optim.lr=interval(0,1)", "hydra.sweeper.direction=min"], "direction=min is not known: choose minimize or"),
    ],
)
def test_a_mistake_gets_one_sentence_before_anything_is_trained(tiny, run_here, tmp_path, words, says):
    status, said, complaints = run_here("train", *tiny, "+sweep=optuna", "run=first", *words)
    assert status == 1, said + complaints
    assert says in complaints
    assert complaints.count("error: ") == 1
    assert "Traceback" not in complaints
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.slow
def test_a_search_by_what_is_not_measured_ends_with_its_first_trial(tiny, run_here, tmp_path):
    asked = ["+sweep=optuna", "run=first", "callbacks.pruning=null", "optim.lr=1e-3,1e-4", "trainer.max_steps=1"]
    asked += ["trainer.val_check_interval=1", "callbacks.samples=null", "optimized_metric=val/loss_nosy"]
    status, said, complaints = run_here("train", *tiny, *asked)
    assert status == 1, said + complaints
    assert "logs/tiny/sweep_first/0 ended without optimized_metric=val/loss_nosy" in complaints
    assert "Did you mean val/loss_noisy?" in complaints
    assert not (tmp_path / "logs/tiny/sweep_first/1").exists()


# holds the lock of the run folder in argv[1] for a second
HOLDS = "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1); time.sleep(1)"


class Fragile(Launcher):
    """Runs nothing: jobs end with the value 1, but the process of job `dies` ends all of its launch with an error."""

    def __init__(self, folder: Path, *, dies: int) -> None:
        self.folder = folder
        self.dies = dies

    def setup(self, **_) -> None: ...

    def launch(self, job_overrides, initial_job_idx) -> list[JobReturn]:
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        assert not any(is_held(self.folder / str(number)) for number in numbers)
        if len(numbers) > 1:  # of which the last outlives the others
            lock = self.folder / str(numbers[-1]) / LOCK_FILE
            lock.parent.mkdir()
            self.outlives = subprocess.Popen([sys.executable, "-uc", HOLDS, str(lock)], stdout=subprocess.PIPE)
            self.outlives.stdout.readline()
            self.outlives.stdout.close()
        if self.dies in numbers:
            raise TerminatedWorkerError("a worker was killed:\nSIGKILL(-9)")
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=1.0) for _ in numbers]


def test_a_trial_whose_process_dies_fails_alone(tmp_path):
    sweeper = OptunaSweeper(sampler=DictConfig({}), n_jobs=3)
    sweeper.launcher = Fragile(tmp_path, dies=1)
    begun = search(tmp_path)
    sweeper._launch(begun, [begun.ask() for _ in range(3)], [])
    sweeper._launch(begun, [begun.ask()], [])
    trials = open_study(tmp_path).get_trials()
    states = [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert [trial.state for trial in trials] == states
    assert trials[1].user_attrs[ERROR] == "a worker was killed: SIGKILL(-9)"
    sweeper.launcher.outlives.wait(10)


@pytest.mark.slow
@pytest.mark.longest
def test_after_a_worker_was_killed_its_trial_and_those_beside_it_go_on(tiny, tmp_path):
    asked = [*tiny, "+sweep=optuna", "run=first", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2"]
    asked += ["trainer.max_steps=40", "trainer.val_check_interval=10", "callbacks.samples=null"]
    asked += ["optim.lr=interval(1e-4,1e-3)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    folder = tmp_path / "logs/tiny/sweep_first"
    process = _start(asked, tmp_path)
    _wait_for(lambda: list((folder / "0/checkpoints").glob("step_*.ckpt")), process)
    os.kill(int((folder / "0" / LOCK_FILE).read_text().split()[1]), signal.SIGKILL)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert "2 trials are launched again, one by one, because of an error: A worker process" in said
    assert [trial.state for trial in open_study(folder).get_trials()] == [TrialState.COMPLETE] * 2


@pytest.mark.slow
def test_killed_in_mid_trial_a_sweep_goes_on_as_if_it_had_not_been(tiny, run_command, tmp_path):
    """SIGKILL twice; no trial is lost or repeated, and each ends in the value it would have had."""
    asked = [*tiny, "+sweep=optuna", "hydra.sweeper.n_trials=4", "trainer.max_steps=24", "callbacks.samples=null"]
    asked += ["trainer.val_check_interval=6", "hydra.sweeper.sampler.n_startup_trials=2"]
    asked += ["optim.lr=tag(log,interval(1e-4,1e-1))", "model/schedule=choice(cosine,flow)"]
    said = run_command("train", *asked, "run=whole", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    broken = tmp_path / "logs/tiny/sweep_broken"

    def steps(trial: int) -> int:
        return max((int(path.stem[5:]) for path in (broken / f"{trial}/checkpoints").glob("step_*.ckpt")), default=0)

    for trial in (0, 2):
        process = _start([*asked, "run=broken"], tmp_path)
        _wait_for(lambda trial=trial: steps(trial) >= 9, process)
        process.kill()
        process.communicate()
        assert steps(trial) < 24
        assert open_study(broken).get_trials()[trial].state is TrialState.RUNNING
    said = run_command("train", *asked, "run=broken", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "trial 2 was interrupted, and goes on" in said.stdout
    one, other = (open_study(tmp_path / f"logs/tiny/sweep_{name}").get_trials() for name in ("whole", "broken"))
    assert [trial.params for trial in one] == [trial.params for trial in other]
    assert [trial.value for trial in one] == [trial.value for trial in other]
    assert [trial.state for trial in one] == [trial.state for trial in other]
    assert len({str(trial.params) for trial in other}) == 4
    report = (broken / "report.md").read_text()
    assert report.count("](0)") == report.count("](3)") == 1


@pytest.mark.slow
def test_joblib_runs_jobs_at_once_and_one_that_fails_is_named_at_the_end(tiny, run_command, tmp_path):
    settings = [*tiny, "trainer.max_steps=2", "callbacks.samples=null", "hydra/launcher=joblib"]
    said = run_command("train", "-m", *settings, "hydra.launcher.n_jobs=2", "optim.lr=1e18,1e-3,2e18", cwd=tmp_path)
    assert said.returncode == 1, said.stdout + said.stderr
    assert "error: 2 of the jobs failed:\n  #0 " in said.stderr
    assert said.stderr.rstrip().count("the loss became") == 4  # when they failed, and at the end
    jobs = sorted((tmp_path / "logs/tiny").glob("sweep_*/*/"))
    assert [(job / "checkpoints/last.ckpt").exists() for job in jobs] == [False, True, False]


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("launcher", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]])
def test_a_search_runs_its_trials_by_any_launcher(tiny, run_command, tmp_path, launcher):
    asked = [*tiny, "+sweep=optuna", "run=first", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2"]
    asked += ["trainer.max_steps=4", "trainer.val_check_interval=2", "optim.lr=tag(log,interval(1e-4,1e-1))"]
    said = run_command("train", *asked, f"hydra/launcher={launcher[0]}", *launcher[1:], cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    trials = open_study(tmp_path / "logs/tiny/sweep_first").get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert all(sorted(trial.intermediate_values) == [2, 4] for trial in trials)


@pytest.mark.slow
def test_a_trial_of_several_processes_is_pruned_in_all_of_them(tiny, run_command, tmp_path):
    threshold = ["pruner._target_=optuna.pruners.ThresholdPruner", "~pruner.n_startup_trials", "+pruner.upper=0.001"]
    asked = [*tiny, "+sweep=optuna", "run=first", "trainer.max_steps=12", "trainer.val_check_interval=3", *threshold]
    asked += ["optim.lr=interval(1e-4,1e-3)", "hydra.sweeper.n_trials=1", "trainer=ddp", "trainer.devices=2"]
    began = time.monotonic()
    said = run_command("train", *asked, "callbacks.samples=null", cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    assert time.monotonic() - began < 280  # neither process waited for the other
    folder = tmp_path / "logs/tiny/sweep_first"
    (trial,) = open_study(folder).get_trials()
    assert trial.state is TrialState.PRUNED
    assert Path(folder / "0/checkpoints/last.ckpt").resolve().name == "step_00000003.ckpt"


def test_a_sweep_under_torchrun_is_refused(tiny, run_here, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    status, _, complaints = run_here("train", *tiny, "+sweep=optuna", "run=first", "optim.lr=interval(0,1)")
    assert status == 1
    assert "Start it once, without torchrun, with trainer=ddp" in complaints


def test_without_optuna_it_says_what_to_install(tiny, run_here, monkeypatch):
    Plugins.instance()  # imports them
    monkeypatch.setattr(sys.modules["hydra_plugins.diffusion_art_optuna.sweeper"], "find_spec", lambda name: None)
    status, _, complaints = run_here("train", *tiny, "+sweep=optuna", "run=first", "optim.lr=interval(0,1)")
    assert status == 1
    assert complaints.endswith("python -m pip install -e '.[sweep]'\n")
