"""Trackers of experiments beside `metrics.csv`: one record over all resumes of a run, its settings, its pictures.

A run folder remembers the id that a tracker gave the run, so that a resumed run goes on in the same record.
A tracker that fails when the run has begun costs its curves and not the run, which has its own in `metrics.csv`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial, singledispatch
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from diffusion_art.errors import UserError, first_line
from diffusion_art.extras import install_command
from diffusion_art.files import without_secrets
from diffusion_art.training.run.csv_logger import RunCSVLogger

log = logging.getLogger(__name__)

IDS_FILE = "tracker_ids.json"  # in the run folder
REST_S = 600.0  # how long a tracker that failed is left alone
OF_MLFLOW = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}  # else it waits for minutes


def run_name(folder: str, log_dir: str) -> str:
    """`name/run` of a run folder; each job of a sweep has its own: `name/sweep_time/3`."""
    path, root = Path(folder).absolute(), Path(log_dir).absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


class RunWandb(WandbLogger):
    """Lightning's W&B logger with one id over all resumes of the run in `folder`.

    `settings` are those of Lightning's own: `project offline entity tags group log_model ...`.
    """

    def __init__(self, *, folder: str, log_dir: str, **settings: Any) -> None:
        known = _ids(folder).get("wandb")
        settings = {"name": run_name(folder, log_dir), "save_dir": folder, **settings}
        super().__init__(id=known or secrets.token_hex(4), resume="allow", **settings)
        if known is None:
            _remember(folder, "wandb", str(self.version))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the record: Lightning leaves it open, and the next job of a sweep would go on in it."""
        super().finalize(status)
        import wandb  # here: an extra, and it takes a second

        if wandb.run is not None and wandb.run.id == self.version:
            wandb.finish(exit_code=int(status == "failed"))


class RunMLFlow(MLFlowLogger):
    """Lightning's MLflow logger with one record over all resumes of the run in `folder`.

    Without `tracking_uri` and `$MLFLOW_TRACKING_URI` it writes to `mlflow.db` in `log_dir`: MLflow has given up the
    folder of files that Lightning would choose (MLflow 3.17 raises an error there).

    Raises:
        UserError: MLflow is not installed.
    """

    def __init__(self, *, folder: str, log_dir: str, tracking_uri: str | None = None, **settings: Any) -> None:
        self._folder = folder
        for name, value in OF_MLFLOW.items():
            os.environ.setdefault(name, value)
        root = Path(log_dir).absolute()
        if tracking_uri is None:
            root.mkdir(parents=True, exist_ok=True)
            tracking_uri = f"sqlite:///{root / 'mlflow.db'}"
            settings = {"artifact_location": (root / "mlflow").as_uri(), **settings}
        settings = {"run_name": run_name(folder, log_dir), **settings}
        try:
            super().__init__(tracking_uri=tracking_uri, run_id=_ids(folder).get("mlflow"), **settings)
        except ModuleNotFoundError as error:
            raise UserError(f"logger=mlflow needs MLflow ({error}): {install_command('mlflow')}") from None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Once: MLflow refuses another value for a parameter that a run has, and a resumed run may have one."""
        if "mlflow" in _ids(self._folder):
            return
        super().log_hyperparams(params, *args, **kwargs)
        _remember(self._folder, "mlflow", str(self.run_id))


class RunTrackio(Logger):
    """A trackio run that goes on over all resumes of the run in `folder`.

    `settings` are those of `trackio.init`: `space_id server_url group auto_log_cpu ...`. Without `space_id` and
    `server_url` it writes to `$TRACKIO_DIR`, which is below the cache of the hub.

    Raises:
        UserError: trackio is not installed.
    """

    def __init__(self, *, folder: str, log_dir: str, project: str, **settings: Any) -> None:
        super().__init__()
        try:
            self._trackio = import_module("trackio")
        except ModuleNotFoundError as error:
            raise UserError(f"logger=trackio needs trackio ({error}): {install_command('trackio')}") from None
        self._folder, self._project, self._settings = folder, project, settings
        self._name = run_name(folder, log_dir)
        self._run: Any = None

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str:
        return self._name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `trackio.Run`."""
        if self._run is None:
            known = "trackio" in _ids(self._folder)
            settings = {"name": self._name, "resume": "allow" if known else "never", "embed": False, **self._settings}
            self._run = self._trackio.init(self._project, **settings)
            _remember(self._folder, "trackio", str(self._run.id))
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.experiment.config.update(params)  # trackio sends it along with the first row

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)

    def pictures(self, named: dict[str, tuple[Image.Image, str]], *, step: int) -> None:
        """Pictures with their captions, under their names."""
        told = {name: self._trackio.Image(picture, caption=caption) for name, (picture, caption) in named.items()}
        self.experiment.log(told, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the record, so that the next job of a sweep has one of its own."""
        if self._run is not None:
            self._run.finish()
            self._run = None


def begin(logger: Logger, settings: dict[str, Any]) -> None:
    """Let a tracker begin its record, with the run's config.

    Raises:
        UserError: it cannot, as where its server is away.
    """
    try:
        tell_settings(logger, settings)
    except UserError:
        raise
    except Exception as error:  # each tracker has errors of its own
        raise UserError(
            f"{_called(logger)} cannot begin its record: {first_line(error)}. Look at the keys of `logger`, or train "
            "with logger=csv."
        ) from error
    if not isinstance(logger, RunCSVLogger):  # whose folder is the run's: without it nothing is saved
        _bear(logger)


class Patience:
    """Calls what belongs to one tracker. Where that fails it says so, once, and leaves the tracker alone for a while.

    Its server may be away for an hour, and each call to it waits until it gives up.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._failed_at: float | None = None
        self._asking = False

    def __call__(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._asking:  # one of its methods calls another
            return action(*args, **kwargs)
        if self._failed_at is None or time.monotonic() - self._failed_at >= REST_S:
            return self.at_once(action, *args, **kwargs)
        return None

    def at_once(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._asking = True
        try:
            result = action(*args, **kwargs)
        except Exception as error:  # each tracker has errors of its own
            if self._failed_at is None:
                said = first_line(error)
                log.warning("%s fails: %s. The run goes on, and metrics.csv has what is lost there.", self.name, said)
            self._failed_at = time.monotonic()
            return None
        finally:
            self._asking = False
        if self._failed_at is not None:
            log.info("%s answers again", self.name)
            self._failed_at = None
        return result


_patience: WeakKeyDictionary[Logger, Patience] = WeakKeyDictionary()


def _bear(logger: Logger) -> None:
    """Let no call that the trainer makes of a tracker end the run."""
    patience = _patience[logger] = Patience(_called(logger))
    for name in ("log_metrics", "save", "after_save_checkpoint"):
        setattr(logger, name, partial(patience, getattr(logger, name)))
    logger.finalize = partial(patience.at_once, logger.finalize)


@rank_zero_only
def tell_settings(logger: Logger, settings: dict[str, Any]) -> None:
    """Give a tracker the run's config, without secrets."""
    told = without_secrets({key: value for key, value in settings.items() if key not in ("callbacks", "logger")})
    if isinstance(logger, TensorBoardLogger):  # its table of runs shows the scalars that are named here
        fresh = not list(Path(logger.log_dir).glob("events.*"))
        metrics = {settings["optimized_metric"]: math.nan} if fresh and settings["optimized_metric"] else None
        logger.log_hyperparams(told, metrics)
    else:
        logger.log_hyperparams(told)


def show_pictures(logger: Logger, grid: Image.Image, pictures: Sequence[Image.Image], captions: list[str], step: int):
    """Give a tracker the sample grid and its pictures with captions; one that has no pictures takes nothing."""
    show = partial(_show, logger, grid, pictures, captions, step)
    return _patience[logger](show) if logger in _patience else show()


@singledispatch
def _show(logger: Logger, grid: Image.Image, pictures: Sequence[Image.Image], captions: list[str], step: int):
    """Of a tracker that has no pictures: nothing."""


@_show.register
def _(logger: WandbLogger, grid: Image.Image, pictures: Sequence[Image.Image], captions: list[str], step: int):
    logger.log_image("samples/grid", [grid], step=step, caption=[f"step {step:,}"])
    logger.log_image("samples", list(pictures), step=step, caption=captions)


@_show.register
def _(logger: TensorBoardLogger, grid: Image.Image, pictures: Sequence[Image.Image], captions: list[str], step: int):
    logger.experiment.add_image("samples", np.asarray(grid), step, dataformats="HWC")


@_show.register
def _(logger: MLFlowLogger, grid: Image.Image, pictures: Sequence[Image.Image], captions: list[str], step: int):
    logger.experiment.log_image(logger.run_id, grid, key="samples", step=step)


@_show.register
def _(logger: RunTrackio, grid: Image.Image, pictures: Sequence[Image.Image], captions: list[str], step: int):
    named = {f"samples/{row:02d}": pair for row, pair in enumerate(zip(pictures, captions))}
    logger.pictures({"samples/grid": (grid, f"step {step:,}")} | named, step=step)


def _called(logger: Logger) -> str:
    return type(logger).__name__.removeprefix("Run")


def _ids(folder: str) -> dict[str, str]:
    path = Path(folder) / IDS_FILE
    return json.loads(path.read_text()) if path.exists() else {}


@rank_zero_only
def _remember(folder: str, tracker: str, run_id: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / IDS_FILE).write_text(json.dumps({**_ids(folder), tracker: run_id}) + "\n")
