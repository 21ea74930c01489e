"""What all commands share: Hydra's entry point, and errors as one sentence instead of a traceback."""

from __future__ import annotations

import errno
import functools
import importlib
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_art.accel.memory import keep_memory
from diffusion_art.config import config_dir, plain
from diffusion_art.errors import UserError, raised_in
from diffusion_art.hydra_errors import (
    check_sections,
    explain,
    flags_first,
    groups,
    own_keys,
    refuse_added,
    refuse_options,
    without_nulls,
)
from diffusion_art.overrides import given, refuse_renamed, typed, understood
from diffusion_art.shards.places import refuse_secrets
from diffusion_art.stop_signals import exit_status
from diffusion_art.training.run.run_folder import drop_if_bare, is_new

log = logging.getLogger(__name__)

ADDRESSES = ("path", "url", "real")  # keys whose values may be the address of shards, or of their server
# errors of the system that are no mistake of the program: no place, no permission, a file in place of a folder
OF_A_FULL_DISK = frozenset((errno.ENOSPC, errno.EDQUOT))
OF_THE_DISK = OF_A_FULL_DISK | {
    errno.EACCES,
    errno.EEXIST,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
FAILED_FILE = "failed.txt"  # in the folder of a job that failed


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Decorator: a function of the composed config becomes a command-line entry point.

    A `UserError`, a misspelt override or an unknown config choice ends it with one sentence on stderr and
    exit status 1. In a multi-run the other jobs are run all the same, and those that failed are listed at the end.
    Set `HYDRA_FULL_ERROR=1` to see the traceback.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") == "1"
        job = _guarded(task, config_name, wants_traceback=wants_traceback)

        def main() -> None:
            module = getattr(sys.modules["__main__"], "__spec__", None) if task.__module__ == "__main__" else None
            if module is not None:  # `python -m`: by its own name, by which the processes of a launcher find it
                importlib.import_module(module.name).main()
                return
            run = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(job)
            if wants_traceback:
                run()
            else:
                _run_typed(run, config_name)

        main.task = task  # type: ignore[attr-defined]  # the function of a config, for tests and notebooks
        return main

    return decorate


def _guarded(task: Callable[[DictConfig], Any], config_name: str, *, wants_traceback: bool) -> Callable[..., Any]:
    """What Hydra runs for each job: the task, whose errors are told as a command tells them."""

    @functools.wraps(task)
    def guarded(config: DictConfig) -> Any:
        keep_memory()
        job = _job()
        if job is not None and job.mode is RunMode.MULTIRUN:  # of a start before this one
            (Path(job.runtime.output_dir) / FAILED_FILE).unlink(missing_ok=True)
        try:
            _check(config, config_name)
            return task(config)
        except Exception as error:
            error = error if wants_traceback else _as_sentence(error, config_name)
            if job is not None and job.mode is RunMode.MULTIRUN:  # Hydra keeps it, and runs the next job
                raise _job_failed(job, error) from error
            if wants_traceback or not isinstance(error, UserError):
                raise
            _fail(str(error))

    return guarded


def _as_sentence(error: Exception, config_name: str) -> Exception:
    """Errors of the disk, and values that cannot be resolved, as a `UserError`; others as they are."""
    if told := _of_the_disk(error):
        return UserError(told)
    if isinstance(error, OmegaConfBaseException):
        return UserError(explain(error, config_name))
    return error


def _run_typed(run: Callable[[], None], config_name: str) -> None:
    """Run Hydra on the words typed; what goes wrong around the jobs ends the process in a sentence."""
    began = time.time()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own traceback and exits before we see it
    try:
        _understand_words(config_name)
        run()
    except KeyboardInterrupt as error:
        _fail(str(error) or "stopped by Ctrl-C", status=exit_status(signal.SIGINT))
    except Exception as error:
        sentence = _sentence(error, config_name, since=began)
        if sentence is None:
            raise
        _fail(sentence)
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)


def _understand_words(config_name: str) -> None:
    """Bring the words typed into Hydra's form.

    Raises:
        UserError: one of them is for no command, or holds a secret.
    """
    refuse_options(config_name)
    words = without_nulls(flags_first(sys.argv[1:]), config_name)
    sys.argv[1:] = understood(words, groups=groups(), keys=own_keys(config_name))
    for key, value in filter(None, map(typed, sys.argv[1:])):
        if key.rpartition(".")[2] in ADDRESSES:
            refuse_secrets(value)  # before Hydra writes down what was typed
    check_sections(config_name)


def _sentence(error: Exception, config_name: str, *, since: float) -> str | None:
    """What a person is told of an error around the jobs; None for a mistake of the program."""
    match error:
        case HydraException() | OmegaConfBaseException():
            return explain(error, config_name)
        case JobFailed():
            failures = failed_jobs(error.sweep_dir, since=since) or [str(error)]  # the clock was set back meanwhile
            return "\n  ".join([f"{len(failures)} of the jobs failed:", *failures])
        case UserError():
            return str(error)
        case RuntimeError() if raised_in(error, "submitit."):
            return f"the launcher starts no jobs: {error} Without hydra/launcher=... they run here, one by one."
        case AssertionError() if raised_in(error, "hydra.core.default_element"):
            return (
                "a config file chooses a list of files (`- GROUP: [a, b]`) after an override of another group: in "
                "`defaults`, overrides stand last, those of chosen groups too (`override /logger: [a]`)."
            )
        case OSError():  # Hydra makes the folder of a run
            return _of_the_disk(error)
    return None


def _of_the_disk(error: BaseException) -> str | None:
    """What to say of one of `OF_THE_DISK`, also where a library has put it in words of its own; None of others."""
    cut_short = isinstance(error, RuntimeError) and raised_in(error, "torch.serialization")  # by torch.save
    cause = error.__context__ if cut_short else error
    of_safetensors = re.search(r"\(os error (\d+)\)$", str(error))
    if isinstance(cause, OSError):
        file, number = cause.filename or "a file", cause.errno
    else:
        file, number = "a file", int(of_safetensors[1]) if of_safetensors else None
    if number not in OF_THE_DISK:
        return None
    return f"{file} cannot be {'written' if number in OF_A_FULL_DISK else 'used'}: {os.strerror(number)}."


def _job() -> Any:
    """What Hydra says of this job, None where Hydra runs none."""
    return HydraConfig.get() if HydraConfig.initialized() else None


def _check(config: DictConfig, config_name: str) -> None:
    """UserError for what is refused before anything is done. It leaves no folder of a run."""
    job = _job()
    with nullcontext() if job is None else left_bare(Path(job.runtime.output_dir)):
        _refuse_keys(config, config_name)
        _refuse_secret_address(config)


@contextmanager
def left_bare(folder: Path) -> Iterator[None]:
    """A new run that is refused within leaves no folder; a job of a multi-run does, with what was wrong in it."""
    new = is_new(folder)
    try:
        yield
    except UserError:
        job = _job()
        if new and job is not None and job.mode is RunMode.RUN:
            drop_if_bare(folder)
        raise


def _refuse_keys(config: DictConfig, config_name: str) -> None:
    """UserError for keys that nothing would read, and for a setting of Hydra's that no command goes by."""
    composed = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
    refuse_renamed(composed)
    if (job := _job()) is not None:
        refuse_added(job, composed, config_name)
        if job.job.chdir:
            raise UserError("hydra.job.chdir=true would move all relative paths: leave it out, and give paths.log_dir.")


def _refuse_secret_address(config: DictConfig) -> None:
    """UserError where an address of a config file carries a secret; what Hydra wrote down of it is removed."""
    there = [plain(OmegaConf.select(config, key, throw_on_missing=False)) for key in ("data.path", "data.url")]
    try:
        refuse_secrets(str(there))
    except UserError:
        job = _job()
        if job is not None and job.output_subdir:
            shutil.rmtree(Path(job.runtime.output_dir) / job.output_subdir, ignore_errors=True)
        raise


class JobFailed(UserError):
    """A job of a multi-run failed, in this process or in one that a launcher started."""

    def __init__(self, sentence: str, sweep_dir: str) -> None:
        super().__init__(sentence, sweep_dir)
        self.sweep_dir = sweep_dir

    def __str__(self) -> str:
        return str(self.args[0])


def _job_failed(job: Any, error: Exception) -> JobFailed:
    """Say `#0 optim.lr=1e18: what went wrong` now, and leave it in the job's folder for the end of the multi-run."""
    sentence = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    if not isinstance(error, UserError):
        log.error("a mistake of the program", exc_info=error)
    own = [override for override in given() if override not in sys.argv]  # the others are every job's
    failure = f"#{job.job.num} {' '.join(own)}: {sentence}"
    print(f"error in {failure}", file=sys.stderr)  # noqa: T201
    (Path(job.runtime.output_dir) / FAILED_FILE).write_text(failure)
    return JobFailed(sentence, str(Path(job.sweep.dir).absolute()))


def failed_jobs(sweep_dir: str, *, since: float) -> list[str]:
    """What the jobs of a multi-run left that failed after `since`, by their numbers."""
    files = [file for file in Path(sweep_dir).rglob(FAILED_FILE) if file.stat().st_mtime >= since - 1]
    return [file.read_text() for file in sorted(files, key=lambda file: (len(file.parent.name), file.parent.name))]


def _fail(message: str, *, status: int = 1) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the one line the person reads
    sys.exit(status)
