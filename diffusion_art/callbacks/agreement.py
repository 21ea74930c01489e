"""Every process of a run trains the same thing, or none does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.errors import UserError


class RankAgreement(Callback):
    """Compares the config of every rank with rank 0's before the first step.

    A sweep whose processes each drew their own values would otherwise average the gradients of different runs
    without a word.

    Raises:
        UserError: this rank's config is not rank 0's.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size == 1:
            return
        module: Any = pl_module
        mine = config_digest(module.config)
        first = trainer.strategy.broadcast(mine)
        if mine != first:
            raise UserError(
                f"process {trainer.global_rank} was started with another config ({mine[:12]}) than process 0 "
                f"({first[:12]}). "
                "Start all of them with the same command, and give the run a name: run=NAME."
            )


def config_digest(config: dict) -> str:
    """sha256 of a resolved config."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
