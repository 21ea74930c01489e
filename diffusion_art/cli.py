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
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_art.accel.memory import keep_memory
from diffusion_art.config import config_dir as config_dir
from diffusion_art.errors import UserError
from diffusion_art.overrides import RENAMED, holds, keys_of, meant, option, refuse_renamed, renamed, typed, understood
from diffusion_art.shards.places import refuse_secrets
from diffusion_art.stop_signals import exit_status

log = logging.getLogger(__name__)

ADDRESSES = ("path", "real")  # keys whose values may be the address of shards
# errors of the system that are no mistake of the program: no place, no permission, a folder in place of a file
OF_THE_DISK = frozenset(
    (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
    )
)
CAN_LACK = ("logger", "callbacks")  # groups of a run without which it trains too
FAILED_FILE = "failed.txt"  # in the folder of a job that failed


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Decorator: a function of the composed config becomes a command-line entry point.

    A `UserError`, a misspelt override or an unknown config choice ends it with one sentence on stderr and
    exit status 1. In a multi-run the other jobs are run all the same, and those that failed are listed at the end.
    Set `HYDRA_FULL_ERROR=1` to see the traceback.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") == "1"

        @functools.wraps(task)
        def guarded(config: DictConfig) -> Any:
            keep_memory()
            try:
                refuse_renamed(cast(dict[str, Any], OmegaConf.to_container(config, resolve=False)))
                _refuse_secret_address(config)
                return task(config)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in OF_THE_DISK and not wants_traceback:
                    error = UserError(_of_the_disk(error))
                job = HydraConfig.get() if HydraConfig.initialized() else None
                if job is not None and job.mode is RunMode.MULTIRUN:  # Hydra keeps it, and runs the next job
                    raise _job_failed(job, error) from error
                if wants_traceback or not isinstance(error, UserError):
                    raise
                _fail(str(error))

        def main() -> None:
            module = getattr(sys.modules["__main__"], "__spec__", None) if task.__module__ == "__main__" else None
            if module is not None:  # `python -m`: by its own name, by which the processes of a launcher find it
                importlib.import_module(module.name).main()
                return
            began = time.time()
            run = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(guarded)
            if wants_traceback:
                run()
                return
            os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own traceback and exits before we see it
            try:
                refuse_options(config_name)
                words = _chosen(_multirun_first(sys.argv[1:]), config_name)
                sys.argv[1:] = understood(words, groups=groups())
                for key, value in filter(None, map(typed, sys.argv[1:])):
                    if key.rpartition(".")[2] in ADDRESSES:
                        refuse_secrets(value)  # before Hydra writes down what was typed
                check_sections(config_name)
                run()
            except (HydraException, OmegaConfBaseException) as error:
                _fail(explain(error, config_name))
            except KeyboardInterrupt as error:
                _fail(str(error) or "stopped by Ctrl-C", status=exit_status(signal.SIGINT))
            except JobFailed as error:
                failures = failed_jobs(error.sweep_dir, since=began)
                jobs = "".join(f"\n  {failure}" for failure in failures)
                _fail(f"{len(failures)} of the jobs failed:{jobs}")
            except UserError as error:
                _fail(str(error))
            except OSError as error:  # Hydra makes the folder of a run
                if error.errno not in OF_THE_DISK:
                    raise
                _fail(_of_the_disk(error))
            finally:
                os.environ.pop("HYDRA_FULL_ERROR", None)

        main.task = task  # type: ignore[attr-defined]  # the function of a config, for tests and notebooks
        return main

    return decorate


def _of_the_disk(error: OSError) -> str:
    return f"{error.filename or 'a file'} cannot be used: {error.strerror}."


def _multirun_first(words: list[str]) -> list[str]:
    """The words with `-m` in front, where Hydra wants it.

    A file of `conf/sweep` asks for a multi-run too, except when a config is only looked at: that is one run's.
    """
    given = [word for word in words if word in ("-m", "--multirun")]
    rest = [word for word in words if word not in given]
    sweeps = any(pair[0] == "sweep" for word in rest if (pair := typed(word)))
    looks = {"--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help"} & set(rest)
    return [*(given or ["-m"] * (sweeps and not looks)), *rest]


def _chosen(words: list[str], config_name: str) -> list[str]:
    """The words but for `sampler=null`, where a command has no file of that group anyway; Hydra cannot read it.

    Raises:
        UserError: a group in which null is no choice.
    """
    null = [word for word in words if (pair := typed(word)) and pair[0] in groups() and pair[1] == "null"]
    if not null:
        return words
    defaults = OmegaConf.to_container(OmegaConf.load(config_dir() / f"{config_name}.yaml"), resolve=False)
    empty = {key for one in cast(Any, defaults)["defaults"] if isinstance(one, dict) for key in one if one[key] is None}
    for group in (word.partition("=")[0].lstrip("+") for word in null):
        if group not in empty:
            without = f", or ~{group} for none" if group in CAN_LACK else ""
            raise UserError(f"{group}=null is no choice: choose one of {', '.join(_choices(group))}{without}.")
    return [word for word in words if word not in null]


def _refuse_secret_address(config: DictConfig) -> None:
    """UserError where `data.path` of a config file carries a secret; what Hydra wrote down of it is removed."""
    try:
        refuse_secrets(str(OmegaConf.select(config, "data.path", throw_on_missing=False)))
    except UserError:
        job = HydraConfig.get() if HydraConfig.initialized() else None
        if job is not None and job.output_subdir:
            shutil.rmtree(Path(job.runtime.output_dir) / job.output_subdir, ignore_errors=True)
        raise


def groups() -> frozenset[str]:
    """The keys that choose a file of `conf/`: its folders with yaml files."""
    root = config_dir()
    return frozenset(file.parent.relative_to(root).as_posix() for file in root.rglob("*.yaml")) - {"."}


def section_names() -> frozenset[str]:
    """Last parts of the keys that have keys below them, Hydra's own aside: groups, and what `conf/` says."""
    files = (file for file in config_dir().rglob("*.yaml") if config_dir() / "hydra" not in file.parents)
    texts = [file.read_text("utf-8") for file in files]
    names = {part for group in groups() for part in group.split("/")}
    names.update(name for text in texts for name in re.findall(r"(?m)^ *(\w+): *(?:#.*|[{].*)?$", text))
    aliases = (pair for text in texts for pair in re.findall(r"(?m)^ *(\w+): *[$][{][\w.]*?(\w+)[}]", text))
    return frozenset(names | {name for name, target in aliases if target in names})


def refuse_options(config_name: str) -> None:
    """UserError for an option, as `--learning_rate 1e-4`, of which there are none but Hydra's."""
    if (found := option(sys.argv[1:])) is None:
        return
    flag, value = found
    key = flag.lstrip("-").replace("-", "_")
    config = _composed(config_name)
    known = key if holds(config, key) else next(iter(meant(key, config)), None)
    if known is None:
        raise UserError(f"there is no option {flag}: settings are words like key=value, and `--help` shows the keys.")
    raise UserError(f"there is no option {flag}: settings are words like key=value, here {known}={value or '...'}")


def check_sections(config_name: str) -> None:
    """UserError for a section that is given one value, as `guidance=3`: it would take the place of all its keys."""
    given = [pair for word in sys.argv[1:] if (pair := typed(word)) and pair[0] not in groups()]
    single = {key for key, value in given if not value.startswith(("{", "${")) and value not in ("null", "")}
    suspects = {key for key in single if key.rpartition(".")[2] in section_names()}
    if not suspects or (config := _composed(config_name)) is None:  # composing takes as long as it took Hydra
        return
    for key in suspects:
        if isinstance(section := _at(config, key), dict):
            raise UserError(_section(key, section))


def explain(error: Exception, config_name: str) -> str:
    """Hydra's complaint as one sentence, with the value and what to type instead."""
    text = str(error).strip()
    if misspelt := re.search(r"Could not override '([^']+)'", text):
        return _unknown(misspelt.group(1), config_name)
    if missing := re.search(r"Could not find '([^']+)'", text) or re.search(r"Could not load '([^']+)'", text):
        group, _, choice = missing.group(1).rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE) or _choices(group)
        known = f" Choose one of: {', '.join(options)}." if options else " See the choices with `--help`."
        return f"there is no `{choice}` in the config group `{group}`.{known}"
    if several := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, values = several.group(1).partition("=")
        return f"{key}={values} are several values. Add -m for a run with each, or give a list: '{key}=[{values}]'."
    first = " ".join(line.strip() for line in text.splitlines()[:2])
    return f"{first} (HYDRA_FULL_ERROR=1 shows where)"


def _unknown(key: str, config_name: str) -> str:
    """What to say of a key that this command does not have."""
    config = _composed(config_name)
    if (now := renamed(key)) and holds(config, RENAMED[key].partition(".")[0]):
        return f"{now} in place of {key}=..."
    section = None if config is None else _at(config, key)
    if isinstance(section, dict):
        return _section(key, section)
    if section is not None:
        return f"`{key}` is a key, not a group of files: write `{key}: ...` in place of `override /{key}: ...`."
    parent = key.rpartition(".")[0]
    within = None if config is None or not parent else _at(config, parent)
    beside = f" `{parent}` has {_named(within)}." if isinstance(within, dict) and within else ""
    return f"there is no config key `{key}`{_nearest(key, config)}{beside} Add a new key with `+{key}=...`."


def _section(key: str, section: dict[str, Any]) -> str:
    first = next((name for name in section if not name.startswith("_")), "KEY")
    return f"`{key}` is a section with the keys {_named(section)}. Give one of them, as in {key}.{first}=..."


def _named(section: dict[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in section if not str(name).startswith("_"))


def _choices(group: str) -> list[str]:
    return sorted(file.stem for file in (config_dir() / group).glob("*.yaml")) if group else []


def _composed(config_name: str) -> dict[str, Any] | None:
    """The config of this command with the groups and the experiment asked for, else as it is; no other key is set."""
    known = groups()
    chosen = [word for word in sys.argv[1:] if (pair := typed(word)) and pair[0] in known and "," not in pair[1]]
    for overrides in (chosen, []):
        try:
            GlobalHydra.instance().clear()
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                config = compose(config_name, overrides=overrides)
        except (HydraException, OmegaConfBaseException):
            continue
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
    return None


def _at(config: Any, key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _nearest(key: str, config: dict[str, Any] | None) -> str:
    """'; did you mean ...?' from the keys of a config."""
    near = meant(key, config)[:3] or get_close_matches(key, keys_of(config), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "."


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
    own = [override for override in job.overrides.task if override not in sys.argv]  # the others are every job's
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
