"""The loader of a run, and what its worker processes do with signals, and without their trainer.

Torch's workers end by a SIGTERM or a Ctrl-C that reaches all processes of a run, and the trainer then dies in the
middle of a step. These pass it on to the trainer and work on until it needs them no longer.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import RawValue
from types import FrameType

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from diffusion_art.errors import UserError
from diffusion_art.stop_signals import SIGNALS, blocked, unblock
from diffusion_art.tensors import Batch

_LOOK_S = 1.0  # between looks for the trainer
_DYING_S = 1.0  # how long a killed process may take to end
_USER_ERROR = f"{UserError.__module__}.{UserError.__qualname__}"


class LostWorker(UserError):
    """A worker was killed from outside; the trainer is between two steps."""


def someone_died(batches: object) -> bool:
    """Whether a worker behind this iterator of a `DataLoader` has ended, or does so just now.

    A killed process closes its sockets a moment before its parent can see that it is dead, so this waits for that.
    """
    sentinels = [worker.sentinel for worker in getattr(batches, "_workers", ())]
    return bool(sentinels and wait(sentinels, timeout=_DYING_S))


class Crew:
    """The workers of one loader, as their trainer sees them. Called in each of them when it starts."""

    def __init__(self) -> None:
        self._trainer = os.getpid()
        self._leaving = RawValue("b", 0)  # no tensor: torch may be in any mode when a loader is freed
        atexit.register(self.dismiss)  # before torch and multiprocessing end them

    def dismiss(self) -> None:
        """From now on a SIGTERM, which is how torch ends a worker that hangs, does end it."""
        if os.getpid() == self._trainer:
            self._leaving.value = 1
            atexit.unregister(self.dismiss)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Inside the block workers start: none hears a signal before it knows what to do with it.

        And torch does not take the death of one as a reason to raise in the middle of whatever the trainer does: the
        loader notices when it waits for the worker's batch.
        """
        before = signal.getsignal(signal.SIGCHLD)
        with blocked():
            yield
        if threading.current_thread() is threading.main_thread():
            torchs = getattr(before, "__module__", "") == signal_handling.__name__  # another loader's workers set it
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None or torchs else before)

    def __call__(self, worker: int) -> None:
        gc.freeze()  # what the trainer left unfinished is not this process's to finalise
        parent = os.getppid()

        def heard(number: int, frame: FrameType | None) -> None:
            if self._leaving.value or os.getppid() != parent:
                os._exit(0)
            os.kill(self._trainer, number)

        for number in SIGNALS:
            signal.signal(number, heard)
        unblock()
        threading.Thread(target=_leave_without, args=(parent,), name="watches the trainer", daemon=True).start()


def _leave_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(0)


class TimedLoader(DataLoader):
    """A `DataLoader` that adds up how long training stood waiting for a batch, in seconds.

    Raises:
        LostWorker: a worker was killed, with whatever signal.
    """

    wait_s = 0.0

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride] -- wraps torch's own
        self.dataset.settle()  # type: ignore[attr-defined]
        with self.crew.starting() if self.crew else nullcontext():
            batches = super().__iter__()
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except UserError as error:
                # A worker's error arrives with its traceback as text; its last line is what it had to say.
                raise UserError(str(error).strip().splitlines()[-1].removeprefix(f"{_USER_ERROR}: ")) from None
            except (RuntimeError, OSError, EOFError) as error:
                # Where torch saw it itself it says so; else the worker died while it handed its memory over.
                if not str(error).startswith("DataLoader worker") and not someone_died(batches):
                    raise
                raise LostWorker(
                    f"a worker that prepares the data was killed ({error}), most often for want of memory. "
                    f"Resume with less than data.num_workers={self.num_workers}, or with a smaller data.window."
                ) from error
            self.wait_s += time.perf_counter() - began
            yield batch

    @property
    def crew(self) -> Crew | None:
        """Its worker processes."""
        return getattr(self, "worker_init_fn", None)  # not yet there where the constructor failed

    def dismiss(self) -> None:
        """The workers are needed no longer."""
        if self.crew:
            self.crew.dismiss()

    def __del__(self) -> None:
        self.dismiss()

    def state_dict(self) -> dict:
        """Empty: the cursor lives in the data module. Having the method tells Lightning that resuming is exact."""
        return {}

    def load_state_dict(self, state: dict) -> None: ...
