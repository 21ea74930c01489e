"""Train a model: `python -m diffusion_art.train +experiment=quickstart`.

Composes the run from `conf/`, makes its shards where they are missing, trains, and leaves a run folder that explains
itself (`logs/<name>/<run>/`). Where a run needs several processes and no launcher started them, it starts them from the
saved config.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("train")

import logging
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from diffusion_art.checkpoints import has_checkpoints
from diffusion_art.cli import command, left_bare
from diffusion_art.errors import UserError
from diffusion_art.files import key_of
from diffusion_art.launching import names
from diffusion_art.launching.batches import settle_batch_size
from diffusion_art.launching.fit import errors_logged, farewell, fit, last_value
from diffusion_art.launching.processes import check_processes, launch, processes_of, processes_wanted
from diffusion_art.launching.settle import check_same_data, settle
from diffusion_art.overrides import given
from diffusion_art.training.run.resume import changed, checked_resume, steps_done
from diffusion_art.training.run.run_folder import held
from diffusion_art.training.run.stopping import Stopped, stop_request
from diffusion_art.units import counted

log = logging.getLogger(__name__)

names.register()  # before the config is composed, whose keys ask for them


def train(config: DictConfig) -> float | None:
    """One run. Returns the value of `optimized_metric`, for sweeps."""
    run_dir = _relative(Path(HydraConfig.get().runtime.output_dir))
    rank = getattr(rank_zero_only, "rank", 0)
    if rank != 0:
        logging.getLogger().setLevel(logging.WARNING)
    if run_dir.name.startswith(f"{config.run}-"):  # the name was taken (fresh_folder)
        config.run = run_dir.name
    with stop_request.heard(), left_bare(run_dir) if rank == 0 else nullcontext(), errors_logged():
        _refuse_saved(config, run_dir)
        try:
            with held(run_dir) if rank == 0 else nullcontext():
                return _train(config, run_dir)
        except Stopped as stopped:
            log.info("%s", farewell(stopped, run_dir))
            raise
        except FileNotFoundError as error:
            if run_dir.exists():
                raise
            raise UserError(
                f"{run_dir} has gone while the run wrote there. If it was moved, go on from its last checkpoint with "
                "ckpt_path=WHERE_IT_IS_NOW run=NAME."
            ) from error


def _refuse_saved(config: DictConfig, run_dir: Path) -> None:
    """UserError for the config that another run has saved, given as one to begin with: what depends on a key that is
    given would not follow it, and the run would write into that run's folder too. A run's own processes have its own.
    """
    saved = "paths" not in HydraConfig.get().runtime.choices
    if saved and Path(str(OmegaConf.select(config, "paths.run_dir"))).absolute() != run_dir.absolute():
        raise UserError(
            "this config has no `defaults`, as the one that a run has saved, in which that run's folder and length are "
            "settled. Go on with that run by ckpt_path=FOLDER, or give the words in its .hydra/overrides.yaml again "
            "with run=NAME."
        )


def _train(config: DictConfig, run_dir: Path) -> float | None:
    checkpoint = checked_resume(config.ckpt_path, run_dir)
    if checkpoint is not None:
        check_same_data(checkpoint, config)
    words = [key_of(override) for override in given()]
    settings = settle(config, run_dir, typed=words, checkpoint=checkpoint)
    trainer = settings["trainer"]
    check_processes(trainer)
    if settings["find_batch_size"]:
        world = processes_of(trainer) * int(trainer.get("num_nodes", 1))
        settle_batch_size(settings, checkpoint=checkpoint, world=world)
    if checkpoint is not None and (done := steps_done(checkpoint)) >= (wanted := trainer["max_steps"]):
        more = f"trainer.max_steps={max(2 * wanted, done + 1)}"
        if not has_checkpoints(run_dir):
            raise UserError(
                f"{checkpoint} has done {counted(done, 'step')}, and nothing is left to train: give {more}."
            )
        log.info("the run has done its %s; prolong it with %s", counted(done, "step"), more)
        return last_value(run_dir, settings["optimized_metric"])
    if checkpoint is not None and (said := changed(checkpoint, settings)):
        log.info("%s", said)
    if (processes := processes_wanted(trainer)) > 1:
        launch(settings, run_dir, processes)
        return last_value(run_dir, settings["optimized_metric"])
    return fit(settings, run_dir, checkpoint)


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


main = command("train")(train)

if __name__ == "__main__":
    main()
