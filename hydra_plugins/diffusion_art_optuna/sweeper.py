"""Optuna as a Hydra sweeper: `hydra/sweeper=optuna`, most often by way of `+sweep=optuna`.

Hydra takes plugins from packages below `hydra_plugins` only, and imports all of them at each start. So this module
imports nothing that takes time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

if TYPE_CHECKING:
    from diffusion_art.sweeps.space import Space
    from diffusion_art.sweeps.study import Asked, Search

log = logging.getLogger(__name__)


class OptunaSweeper(Sweeper):
    """Runs `n_trials` trials in all, `n_jobs` at once, by any launcher of Hydra; trial N lives in SWEEP/N.

    A trial that fails is kept as failed and takes no other with it. The same command goes on with a sweep that was
    killed, its interrupted trials first; a larger `n_trials` prolongs it.

    Raises:
        UserError: a space that cannot be searched, or another command in the same folder; at the end, failed trials.
    """

    def __init__(
        self,
        *,
        sampler: DictConfig,
        n_trials: int = 20,
        n_jobs: int = 1,
        direction: str | None = None,
        params: DictConfig | None = None,
    ) -> None:
        self.sampler = sampler
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.direction = direction
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search, and write down what was found after each round."""
        from diffusion_art.errors import UserError
        from diffusion_art.extras import install_command

        if find_spec("optuna") is None:
            raise UserError(f"this sweep needs Optuna, which is not installed: {install_command('sweep')}")
        from diffusion_art.sweeps.space import split
        from diffusion_art.training.run.run_folder import held

        assert self.hydra_context is not None
        assert self.config is not None
        self._check_settings()
        if {"LOCAL_RANK", "TORCHELASTIC_RUN_ID"} & os.environ.keys():
            raise UserError(
                "a sweep starts the processes of its trials itself. Start it once, without torchrun, with trainer=ddp "
                "trainer.devices=N."
            )
        given = [f"{key}={value}" for key, value in self.params.items()] + arguments
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        space, fixed = split(parser.parse_overrides(given))
        if not space:
            raise UserError(
                "there is nothing to search: give a key several values, as in 'optim.lr=tag(log,interval(1e-4,1e-2))' "
                "or 'model/schedule=choice(cosine,flow)'."
            )
        self._check_choices(space, fixed)
        folder = Path(str(self.config.hydra.sweep.dir))
        with held(folder):
            OmegaConf.save(self.config, folder / "multirun.yaml")
            self._search(self._begin(folder, space, fixed), folder, fixed)

    def _check_settings(self) -> None:
        from diffusion_art.errors import UserError

        for name in ("n_trials", "n_jobs"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise UserError(f"hydra.sweeper.{name}={value} must be a whole number from 1 on.")
        if self.direction not in (None, "minimize", "maximize"):
            raise UserError(f"hydra.sweeper.direction={self.direction} is not known: choose minimize or maximize.")

    def _check_choices(self, space: Space, fixed: list[str]) -> None:
        """Compose the config with each choice once, so that a misspelt one is told before anything is trained."""
        from diffusion_art.sweeps.space import examples, overrides_of

        self.validate_batch_is_legal([[*fixed, *overrides_of(params)] for params in examples(space)])

    def _begin(self, folder: Path, space: Space, fixed: list[str]) -> Search:
        from diffusion_art.config import build
        from diffusion_art.files import words_without_secrets
        from diffusion_art.sweeps.space import described
        from diffusion_art.sweeps.study import Search, direction_of, start_study

        assert self.config is not None
        pruner = OmegaConf.select(self.config, "callbacks.pruning.pruner")
        metric = str(OmegaConf.select(self.config, "optimized_metric"))
        study = start_study(
            folder,
            direction=self.direction or direction_of(metric),
            command=[*words_without_secrets(fixed), *described(space)],
            pruner=build(pruner) if pruner else None,
        )
        study.set_user_attr("metric", metric)
        return Search(study, space, sampler=build(self.sampler), folder=folder)

    def _search(self, search: Search, folder: Path, fixed: list[str]) -> None:
        from diffusion_art.sweeps.report import write_report

        try:
            for trial in search.interrupted():
                log.info("trial %d was interrupted, and goes on", trial.number)
                self._run(search, [trial], fixed)
                write_report(folder)
            while (left := search.left(self.n_trials)) > 0:
                self._run(search, [search.ask() for _ in range(min(left, self.n_jobs))], fixed)
                write_report(folder)
        except SystemExit:  # a stop signal: the next start goes on
            write_report(folder)
            raise
        search.conclude()

    def _run(self, search: Search, trials: Sequence[Asked], fixed: list[str]) -> None:
        """Run trials, and tell the study how they ended. Choices that do not go together fail alone."""
        whole = []
        for trial in trials:
            try:
                self.validate_batch_is_legal([[*fixed, *trial.overrides]])
            except (HydraException, OmegaConfBaseException) as error:
                search.tell(trial, error=" ".join(str(error).split()))
            else:
                whole.append(trial)
        for _, part in groupby(enumerate(whole), key=lambda pair: pair[1].number - pair[0]):
            self._launch(search, [trial for _, trial in part], fixed)

    def _launch(self, search: Search, trials: Sequence[Asked], fixed: list[str]) -> None:
        """Launch trials whose numbers follow one another. Where the launcher itself fails, each is launched alone."""
        assert self.launcher is not None
        jobs = [[*fixed, *trial.overrides] for trial in trials]
        try:
            ended = self.launcher.launch(jobs, initial_job_idx=trials[0].number)
        except Exception as error:  # what only a job itself resolves, as its folder, or a process that died
            said = " ".join(str(error).split()) or type(error).__name__
            if len(trials) == 1:
                search.tell(trials[0], error=said)
                return
            log.info("%d trials are launched again, one by one, because of an error: %s", len(trials), said)
            for trial in trials:
                search.wait_for(trial)
                self._launch(search, [trial], fixed)
            return
        for trial, job in zip(trials, ended):
            if job.status is JobStatus.COMPLETED:
                search.tell(trial, value=job.return_value)
            else:
                search.tell(trial, error=str(job._return_value))
        for trial, job in zip(trials, ended):
            if job.status is JobStatus.COMPLETED and job.return_value is None:
                assert self.config is not None
                search.check_measured(trial, metric=str(OmegaConf.select(self.config, "optimized_metric")))
