"""One process of a run trains: Lightning's trainer, the endings it may have, and what is said of them."""

from __future__ import annotations

import csv
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything

from diffusion_art.callbacks.graceful_stop import was_stopped
from diffusion_art.callbacks.peers import verdict_of
from diffusion_art.checkpoints import find_checkpoint, has_checkpoints
from diffusion_art.config import class_of, is_a
from diffusion_art.errors import UserError
from diffusion_art.files import command_line
from diffusion_art.launching.processes import join_again
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.overrides import given
from diffusion_art.training.build import build_datamodule, build_module, build_trainer, is_lightnings, refused
from diffusion_art.training.memory.out_of_memory import is_out_of_memory, out_of_memory
from diffusion_art.training.precompute.precomputed import wanted
from diffusion_art.training.run.resume import steps_done
from diffusion_art.training.run.stopping import Stopped, stop_request

_OF_A_RUN = ("run=", "ckpt_path=", "data.payload=", "data.text_states=")  # what `precompute` needs not be told

log = logging.getLogger(__name__)


def fit(settings: dict[str, Any], run_dir: Path, checkpoint: Path | None) -> float | None:
    """Train to the end, from `checkpoint` on if there is one. Returns the value of `optimized_metric`.

    Raises:
        UserError: memory ran out, or Lightning refuses something.
        Stopped: a signal asked to, and what was trained is saved.
        SystemExit: another process of the run was lost, which others tell.
    """
    quieten()
    torch.set_float32_matmul_precision("high")
    seed_everything(settings["seed"], workers=False, verbose=False)
    datamodule = build_datamodule(settings)
    module = build_module(settings, checkpoint=checkpoint)
    datamodule.precomputed = wanted(settings, module.step, command=_precompute(settings))
    trainer = build_trainer(settings)
    log.info(
        "run: %s (%s, %s, %s trainable weights)",
        run_dir,
        trainer.strategy.root_device,
        settings["trainer"]["precision"],
        f"{sum(p.numel() for p in module.parameters() if p.requires_grad):,}",
    )
    if checkpoint is not None:
        log.info("resuming from %s", checkpoint)
    if said := lost(trainer):
        log.info("%s", said)
    join_again(trainer.strategy)
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    except Stopped:
        raise verdict_of(trainer) or Stopped(stop_request.number) from None
    except (RuntimeError, MemoryError, ValueError, AttributeError, TypeError, MisconfigurationException) as error:
        if (verdict := verdict_of(trainer)) is not None:
            raise verdict from None
        if is_out_of_memory(error):
            saved = str(find_checkpoint(run_dir)) if has_checkpoints(run_dir) else None
            raise out_of_memory(error, settings, world=trainer.world_size, saved=saved) from error
        if is_lightnings(error):
            raise refused(error) from error
        raise
    finally:
        datamodule.teardown()  # Lightning leaves the server of a run that failed
    if (verdict := verdict_of(trainer)) is not None:  # the launcher stopped us for its sake
        raise verdict
    if was_stopped(trainer):
        raise Stopped(stop_request.number or signal.SIGTERM)
    if trainer.is_global_zero and (said := ended_early(trainer)):
        log.info("%s", said)
    if trainer.is_global_zero and (said := painted_with(settings, run_dir)):
        log.info("%s", said)
    value = trainer.callback_metrics.get(settings["optimized_metric"])
    return None if value is None else float(value)


def lost(trainer: Trainer) -> str | None:
    """What is said at the start of a run whose weights nothing saves."""
    if trainer.checkpoint_callbacks:
        return None
    if trainer.loggers:
        return "no weights of this run will be saved: it has no callbacks.checkpoints"
    return "no weights and no figures of this run will be saved: it has neither callbacks.checkpoints nor a logger"


def ended_early(trainer: Trainer) -> str | None:
    """Where a run ended before its last step, and what Lightning's early stopping has to say about it."""
    if trainer.global_step >= trainer.max_steps:
        return None
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    reasons = [getattr(each, "stopping_reason_message", None) for each in callbacks]
    return " ".join([f"the run ended at step {trainer.global_step} of {trainer.max_steps}.", *filter(None, reasons)])


def painted_with(settings: dict[str, Any], run_dir: Path) -> str | None:
    """The command that uses what was trained; None for a job of a multi-run, and where nothing was saved."""
    multirun = HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN
    if multirun or not has_checkpoints(run_dir):
        return None
    if is_a(settings["model"], TextToImage):
        return f"paint with it: {command_line('sample', [f'run={run_dir}'])}"
    kind = class_of(settings["model"])
    return f"{kind.called} is trained, in {run_dir}: {kind.use}"


def _precompute(settings: dict[str, Any]) -> str:
    """The command that makes what the run wants computed before, of the words that were typed where they are known."""
    words = [word for word in given() if not word.startswith(_OF_A_RUN)]
    return command_line("precompute", words or [f"data.path={settings['data']['path']}"])


def last_value(run_dir: Path, metric: str) -> float | None:
    """The last value of a metric in the `metrics.csv` of a run, if there is one."""
    file = run_dir / "metrics.csv"
    if not file.exists():
        return None
    with file.open(newline="") as rows:
        values = [float(value) for row in csv.DictReader(rows) if (value := row.get(metric))]
    return values[-1] if values else None


def farewell(stopped: Stopped, run_dir: Path) -> str:
    """Where a run was stopped, and how to go on with it."""
    if not has_checkpoints(run_dir):
        return f"{stopped.name}: stopped before the first step; nothing to go on from"
    step = steps_done(find_checkpoint(run_dir))
    return f"{stopped.name}: stopped at step {step}, which is saved; go on with: ckpt_path={run_dir}"


@contextmanager
def errors_logged() -> Iterator[None]:
    """The sentence that ends a run is kept in its train.log, not only on the screen."""
    try:
        yield
    except UserError as error:
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "%s", (error,), None)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)
        raise


def quieten() -> None:
    """Hints of Lightning that do not hold here."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*This DataLoader will create.*")
    warnings.filterwarnings("ignore", message=".*`IterableDataset` has `__len__` defined.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what we log there is reduced already
    warnings.filterwarnings("ignore", message=".*Dynamo detected a call to a `functools.lru_cache`.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    # torch 2.14 deprecates what DDP needs here (training/build.py)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*is deprecated.*")
    for name in ("utilities.rank_zero", "accelerators.cuda", "trainer.connectors.signal_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
