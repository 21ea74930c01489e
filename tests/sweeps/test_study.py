"""A study outlives its sweep: what it tried, what it will try, what it refuses."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import optuna
import pytest
from optuna.pruners import MedianPruner
from optuna.samplers import BruteForceSampler, TPESampler
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import TrialState

from diffusion_art.errors import UserError
from diffusion_art.sweeps.plots import importances
from diffusion_art.sweeps.report import write_report
from diffusion_art.sweeps.study import JOURNAL, Progress, Search, direction_of, open_study, start_study
from diffusion_art.sweeps.table import short
from tests.sweeps.test_space import spaces

SPACE = spaces("optim.lr=tag(log,interval(1e-4,1e-1))", "model/schedule=choice(cosine,flow)", "depth=range(1,9)")[0]
TPE = partial(TPESampler, seed=3, n_startup_trials=3)


def search(folder, *, sampler=TPE, space=SPACE, command=("a",)) -> Search:
    study = start_study(folder, direction="minimize", command=list(command), pruner=MedianPruner(n_startup_trials=1))
    return Search(study, space, sampler=sampler, folder=folder)


def value_of(asked) -> float:
    return sum(len(word) * ord(word[-1]) for word in asked.overrides) / 100


def test_a_sweep_that_was_killed_tries_what_it_would_have_tried(tmp_path):
    whole = search(tmp_path / "whole")
    for _ in range(8):
        asked = whole.ask()
        whole.tell(asked, value=value_of(asked))
    for _ in range(4):  # started four times, and killed in its last trial each time
        broken = search(tmp_path / "broken")
        for asked in broken.interrupted():
            broken.tell(asked, value=value_of(asked))
        for _ in range(min(2, broken.left(8))):
            asked = broken.ask()
            if asked.number % 2 == 0:
                broken.tell(asked, value=value_of(asked))
    last = search(tmp_path / "broken")
    for asked in last.interrupted():
        last.tell(asked, value=value_of(asked))
    assert last.left(8) == 0
    one, other = (open_study(tmp_path / name).get_trials() for name in ("whole", "broken"))
    assert [trial.params for trial in one] == [trial.params for trial in other]
    assert [trial.value for trial in one] == [trial.value for trial in other]
    assert len({str(trial.params) for trial in one}) == 8


def test_a_trial_killed_between_two_of_its_values_gets_the_others(tmp_path):
    whole = search(tmp_path / "whole").ask()
    cut = search(tmp_path / "cut")
    trial = cut.study.ask()
    cut._reseed(0, "optim.lr")
    trial._suggest("optim.lr", SPACE["optim.lr"])
    assert search(tmp_path / "cut").interrupted() == [whole]


def test_half_a_line_does_not_lose_the_study(tmp_path):
    begun = search(tmp_path)
    begun.tell(begun.ask(), value=1.0)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "work')
    again = search(tmp_path)
    again.tell(again.ask(), value=2.0)
    assert [trial.value for trial in open_study(tmp_path).trials] == [1.0, 2.0]


def test_half_a_line_is_not_cut_off_while_another_process_writes_it(tmp_path):
    begun = search(tmp_path)
    begun.tell(begun.ask(), value=1.0)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    line = b'{"op_code":0,"worker_id":"x","study_name":"other","directions":[1]}\n'
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()
    with journal.open("ab") as file:
        file.write(line[:20])
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(search, tmp_path)
        time.sleep(0.1)
        assert journal.read_bytes() == whole + line[:20]
        with journal.open("ab") as file:
            file.write(line[20:])
        lock.release()
        again.result(20)
    assert journal.read_bytes().startswith(whole + line)


def test_another_command_is_not_mixed_into_a_study(tmp_path):
    search(tmp_path, command=("a", "optim=sgd"))  # which tried nothing yet
    search(tmp_path, command=("a", "optim=adamw")).ask()
    search(tmp_path, command=("optim=adamw", "a"))
    with pytest.raises(UserError, match=r"without optim=adamw, with optim=muon\..*run=NAME"):
        search(tmp_path, command=("a", "optim=muon"))


def test_how_trials_end(tmp_path):
    begun = search(tmp_path)
    whole, failed, nan, pruned, killed_after, went_on = (begun.ask() for _ in range(6))
    begun.tell(whole, value=0.5)
    begun.tell(failed, error="the loss became nan")
    begun.tell(nan, value=float("nan"))
    progress = Progress(tmp_path / str(pruned.number), pruner=MedianPruner(n_startup_trials=0))
    assert not progress.prunes(2.0, step=10)
    progress.pruned(10)
    begun.tell(pruned, value=2.0)
    Progress(tmp_path / str(killed_after.number), pruner=MedianPruner()).prunes(0.25, step=20)
    begun.tell(killed_after)  # it had come to its end, and nobody was there to hear its value
    progress = Progress(tmp_path / str(went_on.number), pruner=MedianPruner())
    progress.prunes(4.0, step=10)
    progress.pruned(10)  # and was killed before it ended
    progress.prunes(3.0, step=20)
    begun.tell(went_on, value=3.0)
    trials = open_study(tmp_path).get_trials()
    ends = "COMPLETE", "FAIL", "FAIL", "PRUNED", "COMPLETE", "COMPLETE"
    assert [trial.state.name for trial in trials] == list(ends)
    assert [trial.value for trial in trials] == [0.5, None, None, 2.0, 0.25, 3.0]
    with pytest.raises(UserError, match=r"(?s)2 of the 6 trials failed:.*#1 .*the loss became nan\n  #2 .*value nan"):
        begun.conclude()
    write_report(tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "6 trials (3 complete, 2 failed, 1 pruned)" in report
    assert "| **[4](4)** | **0.25** |" in report
    assert "| [5](5) | 3 | 20 |" in report


def test_a_value_beyond_all_numbers_is_a_failure_and_nothing_to_draw(tmp_path):
    begun = search(tmp_path)
    infinite, pruned = begun.ask(), begun.ask()
    begun.tell(infinite, value=float("inf"))
    progress = Progress(tmp_path / str(pruned.number), pruner=MedianPruner())
    progress.prunes(float("inf"), step=10)
    progress.pruned(10)
    begun.tell(pruned)
    write_report(tmp_path)
    assert [trial.state for trial in open_study(tmp_path).trials] == [TrialState.FAIL, TrialState.PRUNED]
    report = (tmp_path / "report.md").read_text()
    assert "failed: it ended with the value inf." in report
    assert "parallel_coordinates" not in report


def test_a_trial_behind_the_others_is_pruned_and_a_step_is_told_once(tmp_path):
    begun = search(tmp_path)
    for value in (1.0, 2.0):
        asked = begun.ask()
        progress = Progress(tmp_path / str(asked.number), pruner=MedianPruner(n_startup_trials=1))
        pruned = progress.prunes(value, step=10)
        assert progress.prunes(value, step=10) is pruned  # a resumed run validates there again
        if not pruned:
            begun.tell(asked, value=value)
    assert pruned


def test_a_grid_tries_each_combination_once_and_ends(tmp_path):
    space = spaces("a=x,y,z", "b=1,2")[0]
    seen = set()
    for _ in range(6):
        begun = search(tmp_path, sampler=partial(BruteForceSampler, seed=0), space=space)
        asked = begun.ask()
        begun.tell(asked, value=1.0)
        seen.add(tuple(asked.overrides))
    assert len(seen) == 6
    assert begun.left(100) == 0
    with pytest.raises(UserError, match=r"an interval has no end.*range"):
        search(tmp_path, sampler=partial(BruteForceSampler, seed=0)).left(10)


def test_a_run_that_is_no_trial_says_so(tmp_path):
    with pytest.raises(UserError, match=r"is no trial of one.*\+sweep=optuna"):
        Progress(tmp_path / "first", pruner=optuna.pruners.NopPruner())


def test_directions_and_short_names():
    minimized = ("val/loss", "val/loss_clean", "fd", "val_x0", "time/data_wait_share")
    assert {direction_of(name) for name in minimized} == {"minimize"}
    assert {direction_of(name) for name in ("val/clip_score", "style", "time/images_per_s")} == {"maximize"}
    with pytest.raises(UserError, match=r"optimized_metric=train/lr.*hydra\.sweeper\.direction"):
        direction_of("train/lr")
    keys = ["optim.lr", "+model.lr", "model/schedule", "depth"]
    assert list(short(keys).values()) == ["optim.lr", "model.lr", "schedule", "depth"]


def test_importance_goes_to_the_key_that_decides(tmp_path):
    begun = search(tmp_path, sampler=partial(optuna.samplers.RandomSampler, seed=0))
    for _ in range(12):
        asked = begun.ask()
        rate = float(asked.overrides[0].partition("=")[2])
        begun.tell(asked, value=abs(rate - 3e-3))
    shares = importances(begun.study)
    assert next(iter(shares)) == "lr"
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["lr"] > 0.5
    write_report(tmp_path)
    assert "![importance](importance.png)" in (tmp_path / "report.md").read_text()


def test_a_report_is_never_half_written(tmp_path):
    """What had its name before is left as it was, and lives on where it has another name."""
    begun = search(tmp_path)
    for name in ("trials.csv", "report.md"):
        (tmp_path / name).write_text("former")
        (tmp_path / f"kept_{name}").hardlink_to(tmp_path / name)
    begun.tell(begun.ask(), value=1.0)
    write_report(tmp_path)
    for name in ("trials.csv", "report.md"):
        assert (tmp_path / f"kept_{name}").read_text() == "former"
        assert "complete" in (tmp_path / name).read_text()
