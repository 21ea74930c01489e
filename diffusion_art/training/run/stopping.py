"""What a run does when it is asked to stop: before it trains it leaves at once, and in training after the step.

`trainer.max_time` ends it so, too.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from diffusion_art.stop_signals import AGAIN_S, exit_status, handled


class Stopped(SystemExit):
    """The run ends because of signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(exit_status(number))
        self.number = number

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name


class StopRequest:
    """Hears the stop signals of this process. A second Ctrl-C waits for nothing.

    Raises:
        Stopped: outside of `at_steps`, wherever the main thread is.
    """

    def __init__(self) -> None:
        self.number = 0  # the signal heard first; 0: none
        self._heard_at = 0.0
        self._at_steps = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Inside the block signals are heard. After it none is remembered: another training may follow."""
        self.number, self._at_steps = 0, False
        try:
            with handled(self._hear):
                yield
        finally:
            self.number = 0

    @contextmanager
    def at_steps(self) -> Iterator[None]:
        """Inside the block the training looks at `number` after each step, and nothing is raised."""
        self._at_steps = True
        try:
            with handled(self._hear):
                yield
        finally:
            self._at_steps = False

    def leave(self) -> None:
        """The process ends already, for another reason: a signal that comes now raises nothing."""
        self._at_steps = True

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number:
            if number == signal.SIGINT and now - self._heard_at > AGAIN_S:
                raise KeyboardInterrupt
            return
        self.number, self._heard_at = number, now
        if not self._at_steps:
            raise Stopped(number)


stop_request = StopRequest()  # of this process, as signals are


def stop_after_step(trainer: Trainer) -> None:
    """End the run after the step just taken. A validation that is due is made, as in a run that goes on; the one that
    Lightning would add is not, so that a resumed run ends as one never stopped.
    """
    trainer.should_stop = True
    every = trainer.val_check_batch
    if not every or (trainer.fit_loop.total_batch_idx + 1) % every:
        trainer.limit_val_batches = 0


class StepTimer(Timer):
    """Lightning's Timer, which looks at the clock after a whole step and never between its parts."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            if trainer.should_stop:
                stop_after_step(trainer)
