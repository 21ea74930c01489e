"""Of several processes none waits for one that is gone, and all train the same thing."""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.errors import UserError, first_line
from diffusion_art.training.processes.peers import Lost, Peers, leave_at_once, said_of, speaks
from diffusion_art.training.run.resume import go_on_from
from diffusion_art.training.run.run_folder import HELD_VARIABLE
from diffusion_art.training.run.stopping import stop_request


class WatchPeers(Callback):
    """Ends this process when another one of the run was killed, crashed or met an error, within half a minute.

    One process on each machine says which it was and why, unless the run's own launcher does. `folder` is the run's.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)
        self.peers: Peers | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        world = trainer.world_size
        if world == 1 or self.peers is not None:
            return
        self.peers = Peers(rank=trainer.global_rank, world=world, leave=self._leave)
        here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        self.peers.connect(partial(trainer.strategy.broadcast, src=0), one_machine=here == world)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """What went wrong here is told to the others, unless it is one of them that went wrong."""
        if self.peers is None:
            return
        suffers = isinstance(exception, RuntimeError) and self.peers.who_was_lost() is not None
        if suffers:
            stop_request.leave()
        elif not isinstance(exception, SystemExit):
            first = first_line(exception)
            name = "" if isinstance(exception, UserError) else f"{type(exception).__name__}: "
            self.peers.close(f"{name}{first}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.peers is not None:
            self.peers.close()

    def verdict(self) -> BaseException | None:
        """How this process ends because of another one, if it does."""
        if self.peers is None or self.peers.lost is None:
            return None
        self.peers.close()
        sentence = self._sentence(self.peers.lost)
        return SystemExit(1) if sentence is None else UserError(sentence)

    def _leave(self, lost: Lost) -> None:
        leave_at_once(self._sentence(lost))

    def _sentence(self, lost: Lost) -> str | None:
        """What this process says of it, if it is the one that does."""
        if HELD_VARIABLE in os.environ or self.peers is None or not speaks(lost):
            return None
        return said_of(lost, world=self.peers.world, go_on=go_on_from(self.folder))


def verdict_of(trainer: Trainer) -> BaseException | None:
    """How this process of a run ends because of another one, if it does."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    watching = (callback for callback in callbacks if isinstance(callback, WatchPeers))
    return next((found for callback in watching if (found := callback.verdict())), None)


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
