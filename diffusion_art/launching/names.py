"""How runs are named: what `conf/` asks for as `${stamp:}`, `${fresh:}` and `${wandb_offline:}`."""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
from omegaconf import OmegaConf

_stamps: set[str] = set()  # the names that this process gave


def run_stamp() -> str:
    """The name of a run nobody named: SLURM's job, or the time it started.

    All processes of one torchrun share their parent, and so its start time.
    """
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"slurm-{job}"
    parent = psutil.Process(os.getppid()) if "TORCHELASTIC_RUN_ID" in os.environ else None
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(parent.create_time() if parent else None))
    _stamps.add(stamp)
    return stamp


def fresh_folder(path: str) -> str:
    """`path`; or where it is named by the time and another run took that name, in the same second, `path-2` and on.

    Made here, since who makes a folder has it.
    """
    ours = any(path.endswith(stamp) for stamp in _stamps)
    if not ours or "TORCHELASTIC_RUN_ID" in os.environ:  # whose processes must find the same name
        return path
    for number in itertools.count(1):
        folder = Path(path if number == 1 else f"{path}-{number}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir()
            return str(folder)
    raise AssertionError("unreachable")


def wandb_offline() -> bool:
    """Whether there is no key to upload with; where $WANDB_MODE says what to do, W&B goes by that."""
    if os.environ.get("WANDB_MODE") in ("online", "disabled", "shared"):
        return False
    return "WANDB_API_KEY" not in os.environ and not (Path.home() / ".netrc").exists()


def register() -> None:
    """Let configs ask for them."""
    OmegaConf.register_new_resolver("stamp", run_stamp, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("fresh", fresh_folder, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("wandb_offline", wandb_offline, replace=True)
