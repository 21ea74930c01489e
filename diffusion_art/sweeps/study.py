"""A sweep's study: which trials there were, what they gave, and what is tried next. It outlives any kill.

A sweep folder holds `study.journal` and the run folder of each trial, named by its number.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
import re
import time
import warnings
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, BruteForceSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState

from diffusion_art.errors import UserError
from diffusion_art.sweeps.space import Space, overrides_of, size
from diffusion_art.training.run.run_folder import held, is_held

log = logging.getLogger(__name__)

JOURNAL = "study.journal"
NAME = "sweep"  # of the only study in the journal
COMMAND, ERROR, PRUNED_AT = "command", "error", "pruned_at"  # what we note of a study and of its trials
LESS = {"loss", "error", "fd", "kid", "cmmd", "x0", "wait"}  # words of metrics of which less is better
MORE = {"score", "accuracy", "precision", "recall", "density", "coverage", "style", "colours", "per"}


def direction_of(metric: str) -> str:
    """`minimize` or `maximize`, from the words of a metric's name.

    Raises:
        UserError: they do not tell.
    """
    words = set(re.split(r"[/_]", metric))
    if words & LESS:
        return "minimize"
    if words & MORE:
        return "maximize"
    meant = {word: near for word in words if (near := get_close_matches(word, LESS | MORE, n=1, cutoff=0.75))}
    spelt = re.sub("|".join(meant), lambda found: meant[found[0]][0], metric) if meant else None
    raise UserError(
        f"optimized_metric={metric} does not tell whether more is better. "
        f"{f'Did you mean {spelt}? Else say' if spelt else 'Say'} so: hydra.sweeper.direction=minimize, or maximize."
    )


def unmeasured(metric: str, run_dir: Path) -> str:
    """What to say of a run that ended well without `metric`, in the names of what it did measure."""
    file = run_dir / "metrics.csv"
    with file.open(newline="") if file.is_file() else io.StringIO() as rows:
        names = [name for name in next(csv.reader(rows), []) if "/" in name]
    near = get_close_matches(metric, names, n=1)
    helps = f"Did you mean {near[0]}?" if near else f"It measured {', '.join(names) or 'nothing that was kept'}."
    return f"{run_dir} ended without optimized_metric={metric}, by which trials are compared. {helps}"


def open_study(folder: Path, **given: Any) -> optuna.Study:
    """The study of a sweep folder, with `sampler=` and `pruner=` where they matter."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # who sweeps is told by us
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    return optuna.load_study(study_name=NAME, storage=storage, **given)


def start_study(folder: Path, *, direction: str, command: list[str], pruner: BasePruner | None) -> optuna.Study:
    """The study of a sweep folder, begun or gone on with.

    Raises:
        UserError: it has trials of another command, which say nothing about these.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    _drop_torn_line(folder / JOURNAL)
    study = optuna.create_study(
        study_name=NAME,
        storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        direction=direction,  # type: ignore[arg-type]
        pruner=pruner or NopPruner(),
        load_if_exists=True,
    )
    if not study.get_trials(deepcopy=False):
        study.set_user_attr(COMMAND, command)
    elif sorted(began_with := study.user_attrs[COMMAND]) != sorted(command):
        raise UserError(_other_command(folder, set(began_with), set(command)))
    if study.direction.name.lower() != direction:
        raise UserError(
            f"the sweep in {folder} has direction={study.direction.name.lower()}, and this command {direction}. "
            "Give a new sweep another name: run=NAME."
        )
    return study


def _other_command(folder: Path, before: set[str], now: set[str]) -> str:
    changed = [f"without {word}" for word in sorted(before - now)] + [f"with {word}" for word in sorted(now - before)]
    return (
        f"the sweep in {folder} was started with another command; this one is {', '.join(changed)}. Give the command "
        "that it was started with, or another name: run=NAME."
    )


def _drop_torn_line(journal: Path) -> None:
    """A machine that went down while a line was written leaves half of it, and no line after it could be read."""
    if not _torn(journal):
        return
    lock = JournalFileSymlinkLock(str(journal))  # as Optuna writes: another process may be in the midst of a line
    lock.acquire()
    try:
        if _torn(journal):
            log.warning("the last entry of %s was not written to its end; it is left out", journal)
            with journal.open("r+b") as file:
                file.truncate(journal.read_bytes().rfind(b"\n") + 1)
    finally:
        lock.release()


def _torn(journal: Path) -> bool:
    """Whether the journal ends in the midst of a line."""
    content = journal.read_bytes() if journal.exists() else b""
    return bool(content) and not content.endswith(b"\n")


def finite(value: float | None) -> bool:
    """Whether there is a value that has a place on an axis."""
    return value is not None and math.isfinite(value)


def was_pruned(trial: FrozenTrial) -> bool:
    """Whether its run ended where the pruner said so. One that was killed there may have gone on since."""
    return trial.last_step is not None and trial.user_attrs.get(PRUNED_AT) == trial.last_step


@dataclass(frozen=True)
class Asked:
    """A trial to run: its number, and the overrides that give it its values."""

    number: int
    overrides: list[str]


class Search:
    """Asks a study for trials, and tells it what became of them.

    The sampler of trial N is made anew from its seed and N. So a sweep that was killed tries what it would have tried.
    """

    def __init__(self, study: optuna.Study, space: Space, *, sampler: partial[BaseSampler], folder: Path) -> None:
        self.study = study
        self.space = space
        self.folder = folder
        self._sampler = sampler
        self._most = size(space) if sampler.func is BruteForceSampler else None

    def left(self, wanted: int) -> int:
        """How many of `wanted` trials are still to be asked for.

        Raises:
            UserError: every combination is wanted, of endlessly many.
        """
        if self._sampler.func is BruteForceSampler and self._most is None:
            raise UserError(
                "hydra/sweeper/sampler=grid tries every value, and an interval has no end of them: give range(...) or "
                "choice(...) in its place."
            )
        wanted = wanted if self._most is None else min(wanted, self._most)
        return wanted - len(self.study.get_trials(deepcopy=False))

    def interrupted(self) -> list[Asked]:
        """Trials that a kill left without an end, with the values they had.

        Raises:
            UserError: one of them is still being trained, by a process that outlived its sweep.
        """
        states = (TrialState.RUNNING,)
        found = []
        for trial in self.study.get_trials(deepcopy=False, states=states):
            with held(self.folder / str(trial.number)):
                self._reseed(trial.number)
                found.append(self._drawn(trial.number, Trial(self.study, trial._trial_id)))
        return found

    def ask(self) -> Asked:
        """A new trial."""
        number = len(self.study.get_trials(deepcopy=False))
        self._reseed(number)
        return self._drawn(number, self.study.ask())

    def _drawn(self, number: int, trial: Trial) -> Asked:
        """A trial with all its values: those it has, and those that a kill kept it from drawing."""
        values = {}
        for key, distribution in self.space.items():
            self._reseed(number, key)
            values[key] = trial._suggest(key, distribution)
        return Asked(number, overrides_of(values))

    def _reseed(self, number: int, key: str = "") -> None:
        """Make the sampler anew, so that what it draws depends on the trial and the key alone."""
        seed = f"{self._sampler.keywords.get('seed') or 0}/{number}/{key}"
        digest = hashlib.sha256(seed.encode()).digest()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.study.sampler = self._sampler(seed=int.from_bytes(digest[:4], "big"))

    def wait_for(self, asked: Asked) -> None:
        """Wait until no process trains it: those of a launcher may outlive an error of one of them."""
        while is_held(self.folder / str(asked.number)):
            time.sleep(1)

    def tell(self, asked: Asked, *, value: float | None = None, error: str | None = None) -> None:
        """Note how a trial ended: pruned, failed (an `error`, or no value that is a finite number), or complete."""
        trial = self.study.get_trials(deepcopy=False)[asked.number]
        if value is None and trial.last_step is not None:  # its run was over before the sweep was killed
            value = trial.intermediate_values[trial.last_step]
        pruned = was_pruned(trial)
        if error is None and not pruned and not finite(value):
            error = f"it ended with the value {value}."
        if error is not None:
            log.info("trial %d failed: %s", asked.number, error)
            self.study._storage.set_trial_user_attr(trial._trial_id, ERROR, error)
            self._told(asked.number, TrialState.FAIL)
        elif pruned:
            self._told(asked.number, TrialState.PRUNED)
        else:
            self._told(asked.number, TrialState.COMPLETE, value)

    def _told(self, number: int, state: TrialState, value: float | None = None) -> None:
        try:
            self.study.tell(number, value, state=state)
        except RuntimeError as error:  # the grid has no more: it asks a loop of Optuna's to stop
            if "stop" not in str(error):
                raise

    def check_measured(self, asked: Asked, *, metric: str) -> None:
        """Called of a trial that ended well and without a value.

        Raises:
            UserError: no trial has had one yet, so those to come will not either.
        """
        trials = self.study.get_trials(deepcopy=False)
        if not any(trial.values or trial.intermediate_values for trial in trials):
            raise UserError(f"{unmeasured(metric, self.folder / str(asked.number))} No other trial was begun.")

    def conclude(self) -> None:
        """Say what the sweep found.

        Raises:
            UserError: trials failed.
        """
        trials = self.study.get_trials(deepcopy=False)
        done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        if done:
            best = self.study.best_trial
            words = " ".join(overrides_of(best.params))
            log.info("the best of %d trials is %d with %.4g: %s", len(trials), best.number, best.value, words)
        log.info("the table and pictures of the sweep are in %s", self.folder)
        if failed := [trial for trial in trials if trial.state is TrialState.FAIL]:
            jobs = "".join(
                f"\n  #{trial.number} {' '.join(overrides_of(trial.params))}: {trial.user_attrs.get(ERROR)}"
                for trial in failed
            )
            raise UserError(f"{len(failed)} of the {len(trials)} trials failed:{jobs}")


class Progress:
    """What one trial's run reaches, told to the study of its sweep. `folder` is the run's: SWEEP/NUMBER.

    Raises:
        UserError: the run is no trial of a sweep.
    """

    def __init__(self, folder: Path, *, pruner: BasePruner) -> None:
        if not folder.name.isdecimal() or not (folder.parent / JOURNAL).is_file():
            raise UserError(
                f"callbacks.pruning belongs to a sweep, and {folder} is no trial of one. Start one with +sweep=optuna, "
                "or leave it out: callbacks.pruning=null."
            )
        self._study = open_study(folder.parent, pruner=pruner)
        self._id = self._study.get_trials(deepcopy=False)[int(folder.name)]._trial_id

    def prunes(self, value: float, *, step: int) -> bool:
        """Whether the trial, with `value` after `step` steps, is not worth going on with."""
        trial = Trial(self._study, self._id)
        if step not in self._study._storage.get_trial(self._id).intermediate_values:
            trial.report(value, step)
        return bool(trial.should_prune())

    def pruned(self, step: int) -> None:
        """Note that the run ends here."""
        self._study._storage.set_trial_user_attr(self._id, PRUNED_AT, step)
