"""Lightning's switches that a run here has otherwise, and those for trying it out, as far as a run that is counted in
steps can have them.
"""

from __future__ import annotations

from typing import Any

from diffusion_art.errors import UserError

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
# callbacks that a run to try the code has no use for
LASTING = ("checkpoints", "snapshots", "caption_following", "forecast")


def check_trial(trainer: dict[str, Any]) -> None:
    """Raises:
    UserError: what is decided elsewhere, or counts passes over the data in Lightning, or an `overfit_batches` that is
        not a number.
    """
    for name, (idle, instead) in DECIDED.items():
        if (found := trainer.get(name)) not in (None, idle):
            raise UserError(f"trainer.{name}={str(found).lower()} changes nothing here: give {instead}.")
    strategy = str(trainer.get("strategy") or "auto")
    if strategy.startswith(("deepspeed", "fsdp", "xla_fsdp")) and strategy != "fsdp2":
        raise UserError(f"trainer.strategy={strategy} is not for runs here: trainer=fsdp shares weights out.")
    if (every := trainer.get("check_val_every_n_epoch")) is not None:
        raise UserError(
            f"trainer.check_val_every_n_epoch={every} counts passes over the data, and a run here is one pass, as long "
            "as its steps: give trainer.val_check_interval=N steps, or a share of the run, such as 0.25."
        )
    for name in ("min_steps", "min_epochs"):
        if (least := trainer.get(name)) is not None:
            raise UserError(
                f"trainer.{name}={least} has no place here: a run is as long as trainer.max_steps or "
                "trainer.max_epochs says."
            )
    limit = trainer.get("limit_train_batches")
    if limit is not None and (limit != 1 or isinstance(limit, int)):
        raise UserError(
            f"trainer.limit_train_batches={limit} counts batches of a pass over the data, and a run here is counted in "
            "steps: give trainer.max_steps=N for a shorter run, or trainer.overfit_batches=N to train on the same N "
            "batches again and again."
        )
    repeated = trainer.get("overfit_batches") or 0
    whole = isinstance(repeated, int) and repeated >= 0
    if isinstance(repeated, bool) or not (whole or (isinstance(repeated, float) and 0 <= repeated <= 1)):
        raise UserError(
            f"trainer.overfit_batches={repeated} is out of range: give a number of batches, or a share of the data "
            "from 0.0 to 1.0."
        )


def trial_steps(trainer: dict[str, Any]) -> int:
    """The steps of `fast_dev_run`, 0 where it is off.

    Raises:
        UserError: no such number.
    """
    asked = trainer.get("fast_dev_run") or 0
    if not isinstance(asked, int) or asked < 0:
        raise UserError(f"trainer.fast_dev_run={asked} is out of range: give true, or a number of steps.")
    return int(asked)


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
