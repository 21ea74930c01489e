"""Ctrl-C, SIGTERM and SIGUSR1 end a run between two steps, with a checkpoint."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class GracefulStop(Callback):
    """Finishes the step in hand, lets the run save itself, and leaves. A second Ctrl-C does not wait.

    `stopped_by` is the signal's number afterwards, 0 when there was none. With several processes they agree on
    the step.
    """

    def __init__(self) -> None:
        self.stopped_by = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in SIGNALS:
            try:
                self._before[number] = signal.signal(number, self._heard)
            except ValueError:  # not in the main thread: a notebook, a test
                return

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.stopped_by and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stopped_by = number
        log.info("%s: finishing this step, saving, leaving", signal.Signals(number).name)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.strategy.reduce_boolean_decision(bool(self.stopped_by), all=False):
            self.stopped_by = self.stopped_by or signal.SIGTERM
            trainer.should_stop = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
