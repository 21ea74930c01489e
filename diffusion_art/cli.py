"""What all commands share: Hydra's entry point, and errors as one sentence instead of a traceback."""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_art.errors import UserError
from diffusion_art.memory import keep_memory
from diffusion_art.stop_signals import exit_status

log = logging.getLogger(__name__)


def config_dir() -> Path:
    """`conf/` of the checkout this package runs from, or the copy an installed wheel carries."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "train.yaml").is_file() else package / "conf"


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Decorator: a function of the composed config becomes a command-line entry point.

    A `UserError`, a misspelt override or an unknown config choice ends it with one sentence on stderr and
    exit status 1. In a multi-run the other jobs are run all the same, and those that failed are listed at the end.
    Set `HYDRA_FULL_ERROR=1` to see the traceback.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") == "1"
        failures: list[str] = []

        @functools.wraps(task)
        def guarded(config: DictConfig) -> Any:
            keep_memory()
            try:
                return task(config)
            except Exception as error:
                job = HydraConfig.get() if HydraConfig.initialized() else None
                if job is not None and job.mode is RunMode.MULTIRUN:  # Hydra keeps it, and runs the next job
                    failures.append(_failure(job, error))
                    raise
                if wants_traceback or not isinstance(error, UserError):
                    raise
                _fail(str(error))

        def main() -> None:
            run = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(guarded)
            if wants_traceback:
                run()
                return
            flags = [word for word in sys.argv[1:] if word in ("-m", "--multirun")]
            sys.argv[1:] = flags + [word for word in sys.argv[1:] if word not in flags]  # Hydra wants them first
            os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own traceback and exits before we see it
            try:
                run()
            except (HydraException, OmegaConfBaseException) as error:
                _fail(explain(error, config_name))
            except KeyboardInterrupt as error:
                _fail(str(error) or "stopped by Ctrl-C", status=exit_status(signal.SIGINT))
            except Exception as error:
                if not failures and not isinstance(error, UserError):
                    raise
                jobs = "".join(f"\n  {failure}" for failure in failures)
                _fail(f"{len(failures)} of the jobs failed:{jobs}" if failures else str(error))
            finally:
                failures.clear()
                os.environ.pop("HYDRA_FULL_ERROR", None)

        main.task = task  # type: ignore[attr-defined]  # the function of a config, for tests and notebooks
        return main

    return decorate


def explain(error: Exception, config_name: str) -> str:
    """Hydra's complaint as one sentence with the value and the mend."""
    text = str(error).strip()
    if misspelt := re.search(r"Could not override '([^']+)'", text):
        key = misspelt.group(1)
        return f"there is no config key `{key}`{_nearest(key, config_name)} Add a new key with `+{key}=...`."
    if missing := re.search(r"Could not find '([^']+)'", text):
        group, _, choice = missing.group(1).rpartition("/")
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        known = f" Choose one of: {', '.join(options)}." if options else " See the choices with `--help`."
        return f"there is no `{choice}` in the config group `{group}`.{known}"
    if unknown := re.search(r"Could not override '([^']+)'\. No match in the defaults list", text):
        return f"there is no config group `{unknown.group(1)}` to override. See the groups with `--help`."
    first = " ".join(line.strip() for line in text.splitlines()[:2])
    return f"{first} (HYDRA_FULL_ERROR=1 shows where)"


def _nearest(key: str, config_name: str) -> str:
    """'; did you mean ...?' from the keys of the base config and of the experiment asked for."""
    experiments = [arg for arg in sys.argv[1:] if arg.startswith("+experiment=")]
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose(config_name, overrides=experiments)
    except (HydraException, OmegaConfBaseException):
        return "."
    known = list(_keys(OmegaConf.to_container(config, resolve=False)))
    near = get_close_matches(key, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "."


def _keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    found = []
    for name, value in node.items():
        found.append(f"{prefix}{name}")
        found.extend(_keys(value, f"{prefix}{name}."))
    return found


def _failure(job: Any, error: Exception) -> str:
    """`#0 optim.lr=1e18: what went wrong`, which is said now and again at the end of a multi-run."""
    sentence = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    if not isinstance(error, UserError):
        log.error("a mistake of the program", exc_info=error)
    own = [override for override in job.overrides.task if override not in sys.argv]  # the others are every job's
    failure = f"#{job.job.num} {' '.join(own)}: {sentence}"
    print(f"error in {failure}", file=sys.stderr)  # noqa: T201
    return failure


def _fail(message: str, *, status: int = 1) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the one line the person reads
    sys.exit(status)
