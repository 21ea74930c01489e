"""Which values a run's settings may have: what is out of range is refused before anything is built.

A limit or an interval of zero or less is off, as it is to Lightning's users. Classes of ours that check their own
arguments are not repeated here. Some of Lightning's switches are otherwise here, and those for trying a run out are
taken as far as a run that is counted in steps can have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from diffusion_art.config import value_at
from diffusion_art.errors import UserError

Check = tuple[Callable[[Any], bool], str]


def check_limits(settings: Mapping[str, Any], keys: Iterable[str] | None = None) -> None:
    """Settled settings; of some of them where `keys` says which.

    Raises:
        UserError: a value of the wrong kind or out of range, by the key that gives it.
    """
    for key in RANGES if keys is None else keys:
        fits, wanted = RANGES[key]
        found = value_at(settings, key, MISSING)
        if found is not MISSING and not fits(found):
            typed = "null" if found is None else found
            raise UserError(f"{key}={typed} is out of range: give {wanted}.")


def interval(value: Any) -> int | None:
    """An interval in steps, None for off."""
    return int(value) if value is not None and value > 0 else None


def validation_interval(value: Any, *, max_steps: int) -> int | str | None:
    """`trainer.val_check_interval` in steps, None for off. A fraction is a share of the run, as Lightning has it for an
    epoch; a text is a time, and stays.
    """
    if isinstance(value, float) and 0 < value <= 1:
        return max(1, int(value * max_steps))
    return value if isinstance(value, str) else interval(value)


# ---------------------------------------------------------------------- the ranges

MISSING = object()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check[0](value), f"{check[1]}, or null"


def _count(low: int) -> Check:
    return lambda value: _whole(value) and value >= low, f"a whole number, {low} or more"


def _every_name(value: Any) -> bool:
    return isinstance(value, str) or (_number(value) and (value <= 1 or value == int(value)))


def _devices(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(_whole(number) and number >= 0 for number in value)
    if isinstance(value, str):
        return value == "auto" or (value != "0" and all(part.isdigit() for part in value.removeprefix("-").split(",")))
    return _whole(value) and (value > 0 or value == -1)


def _name(value: Any) -> bool:
    text = str(value).strip()
    return value is not None and bool(text) and not text.startswith("/") and ".." not in text.split("/")


def _batches(value: Any) -> bool:
    return _number(value) and value >= 0 and (value <= 1 or _whole(value))


def _betas(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_number(v) and 0 <= v < 1 for v in value)


POSITIVE: Check = (lambda value: _number(value) and value > 0, "a number above 0")
NOT_NEGATIVE: Check = (lambda value: _number(value) and value >= 0, "a number, 0 or more")
SHARE: Check = (lambda value: _number(value) and 0 <= value <= 1, "a number from 0 to 1")
BELOW_ONE: Check = (lambda value: _number(value) and 0 <= value < 1, "a number from 0 to below 1")
NUMBER: Check = (_number, "a number")
NAME: Check = (_name, "a name, which is that of a folder in paths.log_dir")
INTERVAL: Check = _or_null((_whole, "a whole number of steps, 0 for off"))

RANGES: dict[str, Check] = {
    "name": NAME,
    "run": NAME,
    "seed": (lambda value: _whole(value) and 0 <= value < 2**32, "a whole number from 0 to 4294967295"),
    "caption_dropout": SHARE,
    "guidance_scale": NUMBER,
    "memory_limit_gb": _or_null(POSITIVE),
    "trainer.accumulate_grad_batches": _count(1),
    "trainer.devices": (_devices, "a number of devices, 1 or more, their numbers as a list, or auto"),
    "trainer.num_nodes": _count(1),
    "trainer.gradient_clip_val": _or_null((_number, "a number, 0 for off")),
    "trainer.limit_val_batches": _or_null((_batches, "a whole number of batches, or a share up to 1.0")),
    "trainer.overfit_batches": (
        lambda value: not value or _batches(value),
        "a number of batches, or a share of the data from 0.0 to 1.0",
    ),
    "trainer.fast_dev_run": (
        lambda value: not value or (isinstance(value, int) and value > 0),
        "true, or a number of steps",
    ),
    "trainer.val_check_interval": _or_null(
        (_every_name, "a whole number of steps, a share of the run up to 1.0, 0 for off, or a time DD:HH:MM:SS")
    ),
    "trainer.log_every_n_steps": INTERVAL,
    "optim.lr": NOT_NEGATIVE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.betas": (_betas, "two numbers from 0 to below 1"),
    "optim.momentum": BELOW_ONE,
    "optim.eps": NOT_NEGATIVE,
    "lr_schedule.warmup_steps": _or_null((_number, "a number of steps, 0 for off")),
    "lr_schedule.floor": SHARE,
    "lr_schedule.patience": _count(0),
    "lr_schedule.factor": SHARE,
    "data.image_size_px": _count(1),
    "data.global_batch_size": _count(1),
    "data.num_workers": _count(0),
    "data.val_samples": _count(0),
    "data.window": _count(1),
    "data.max_bad": _count(0),
    "data.augmentation.horizontal_flip": SHARE,
    "data.augmentation.min_crop": (lambda value: _number(value) and 0 < value <= 1, "a number above 0, up to 1"),
    "callbacks.forecast.after_steps": _count(4),  # the first three are left out, and a time is between two
    "callbacks.throughput.every_n_steps": INTERVAL,
    "callbacks.throughput.warn_share": NUMBER,
    "callbacks.samples.every_n_steps": INTERVAL,
    "callbacks.samples.batch_size": _count(1),
    "callbacks.snapshots.every_n_steps": INTERVAL,
    "callbacks.checkpoints.every_n_steps": INTERVAL,
    "callbacks.checkpoints.keep_last": (_whole, "a whole number, -1 to keep all"),
    "callbacks.checkpoints.keep_best": (_whole, "a whole number, -1 to keep all"),
    "callbacks.caption_following.count": _count(0),
    "callbacks.caption_following.batch_size": _count(1),
    "sampler.num_steps": _count(1),
}


# arguments of Lightning's Trainer that something else here decides: the value that changes nothing, and what to give
DECIDED = {
    "callbacks": (None, "callbacks.NAME=null to leave one out, or +callbacks.NAME={_target_: ...} for another"),
    "logger": (True, "~logger for none, or logger=wandb"),
    "enable_checkpointing": (True, "callbacks.checkpoints=null"),
    "enable_progress_bar": (True, "callbacks.progress=null"),
    "default_root_dir": (None, "paths.log_dir=FOLDER"),
    "gradient_clip_algorithm": ("norm", "trainer.gradient_clip_val, which limits the 2-norm of all gradients together"),
    "reload_dataloaders_every_n_epochs": (0, "nothing: pictures are shuffled anew in each pass as it is"),
    "limit_test_batches": (None, "the command `evaluate` when the run is over"),
    "limit_predict_batches": (None, "the command `sample` when the run is over"),
}
# those that count passes over the data, and why a run has none
_LENGTH = "has no place here: a run is as long as trainer.max_steps or trainer.max_epochs says."
OF_PASSES = {
    "check_val_every_n_epoch": "counts passes over the data, and a run here is one pass, as long as its steps: give "
    "trainer.val_check_interval=N steps, or a share of the run, such as 0.25.",
    "min_steps": _LENGTH,
    "min_epochs": _LENGTH,
}
# callbacks that a run to try the code has no use for
LASTING = ("checkpoints", "snapshots", "caption_following", "forecast")


def check_trial(trainer: dict[str, Any]) -> None:
    """UserError for what is decided elsewhere, what counts passes over the data, or wrong numbers of batches to try."""
    for name, (idle, instead) in DECIDED.items():
        if (found := trainer.get(name)) not in (None, idle):
            raise UserError(f"trainer.{name}={str(found).lower()} changes nothing here: give {instead}.")
    strategy = str(trainer.get("strategy") or "auto")
    if strategy.startswith(("deepspeed", "fsdp", "xla_fsdp")) and strategy != "fsdp2":
        raise UserError(f"trainer.strategy={strategy} is not for runs here: trainer=fsdp shares weights out.")
    for name, why in OF_PASSES.items():
        if (found := trainer.get(name)) is not None:
            raise UserError(f"trainer.{name}={found} {why}")
    limit = trainer.get("limit_train_batches")
    if limit is not None and (limit != 1 or isinstance(limit, int)):
        raise UserError(
            f"trainer.limit_train_batches={limit} counts batches of a pass over the data, and a run here is counted in "
            "steps: give trainer.max_steps=N for a shorter run, or trainer.overfit_batches=N to train on the same N "
            "batches again and again."
        )
    check_limits({"trainer": trainer}, ("trainer.overfit_batches", "trainer.fast_dev_run"))


def trial(trainer: dict[str, Any], steps: int) -> dict[str, Any]:
    """The trainer of `fast_dev_run`: so many steps, then as many batches of validation."""
    return trainer | {
        "fast_dev_run": False,
        "max_steps": steps,
        "max_epochs": -1,
        "limit_val_batches": steps,
        "val_check_interval": steps,
        "log_every_n_steps": 1,
    }
