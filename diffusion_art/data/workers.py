"""The loader of a run and its worker processes: what they do with signals, and without their trainer, and the memory in
which they hand over batches.

Torch's workers end by a SIGTERM or a Ctrl-C that reaches all processes of a run, and the trainer then dies in the
middle of a step. These pass it on to the trainer and work on until it needs them no longer.

Fresh shared memory costs a page fault for every 4 KiB: a tenth of the time a JPEG takes to decode, and half of it in
a virtual machine. So a worker keeps the memory of the batches that it has sent, and when the trainer has let go of
the last view of one, fills it anew and sends its number.
"""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import prod
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import RawValue
from types import FrameType

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
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


# ---------------------------------------------------------------------- the memory of batches

_FREE, _TAKEN = 0, 1
# Decoding into rows aligned to 32 bytes takes a tenth longer, perhaps since libjpeg-turbo writes those past the cache.
_SHIFT_BYTES = 16

_rings: weakref.WeakValueDictionary[str, Ring] = weakref.WeakValueDictionary()
_numbers = itertools.count()


class Ring:
    """Up to `slots` batches of each of `workers`. A batch that finds no slot free has memory of its own.

    Made by the trainer, and sent to its workers as a part of their data set. Each side has its own view of the
    slots; the flags are shared: a worker takes, the trainer gives back, so nothing is locked.
    """

    def __init__(self, *, workers: int, slots: int) -> None:
        self.name = f"{os.getpid()}-{next(_numbers)}"
        self._flags = shared(workers, slots)
        self._slots: dict[tuple[int, int], Tensor] = {}  # bytes by worker and number, as far as they are mapped here
        _rings[self.name] = self

    def __getstate__(self) -> dict:
        """What a worker needs: none of the slots is its own yet."""
        return {"name": self.name, "_flags": self._flags, "_slots": {}}

    @cached_property
    def _taken(self) -> np.ndarray:
        return self._flags.numpy()

    def take(self, count: int, row: tuple[int, ...]) -> Place | None:
        """A free place (uint8) for `count` rows of this shape, None when there is none, or outside of a worker."""
        worker = get_worker_info()
        if worker is None or worker.id >= len(self._taken):
            return None
        for slot, state in enumerate(self._taken[worker.id].tolist()):
            if state == _FREE:
                self._taken[worker.id, slot] = _TAKEN
                memory, shape = self._slots.get((worker.id, slot)), (count, *row)
                fresh = memory is None or len(memory) < prod(shape)
                if memory is None or fresh:
                    self._slots[worker.id, slot] = memory = shared(prod(shape))
                return Place(self.name, worker.id, slot, memory[: prod(shape)].view(shape), memory if fresh else None)
        return None

    def lend(self, worker: int, slot: int, shape: tuple[int, ...], fresh: Tensor | None) -> Tensor:
        """The pictures in a slot; it is given back when the last tensor on them is gone. `fresh`: its new memory."""
        if fresh is not None:
            self._slots[worker, slot] = fresh
        # Torch keeps this very array for as long as the storage made from it lives.
        array = self._slots[worker, slot].numpy()[: prod(shape)].reshape(shape)
        weakref.finalize(array, _give_back, self._taken, worker, slot).atexit = False
        return torch.from_numpy(array)


@dataclass
class Place:
    """A slot that a worker has taken: room for pictures, b h w 3."""

    ring: str
    worker: int
    slot: int
    images: Tensor
    fresh: Tensor | None  # the slot's memory, where the trainer does not know it yet


@dataclass
class Parcel(Batch):
    """A batch in a place of a ring: with its pictures in the worker, with their number on the way, then a Batch."""

    place: Place = field(kw_only=True)

    @classmethod
    def of(cls, batch: Batch, place: Place) -> Parcel:
        """`batch`, whose pictures lie at `place`."""
        return cls(**{field.name: getattr(batch, field.name) for field in fields(batch)}, place=place)

    def __reduce__(self) -> tuple:
        place = self.place
        rest = (self.captions, self.keys, self.positions, self.cursor, self.encoded, self.cond, self.features)
        return _arrive, ((place.ring, place.worker, place.slot, tuple(place.images.shape), place.fresh), rest)


def private(*shape: int) -> Tensor:
    """Memory (uint8) of this process, not cleared."""
    return torch.empty(prod(shape) + _SHIFT_BYTES, dtype=torch.uint8)[_SHIFT_BYTES:].view(shape)


def shared(*shape: int) -> Tensor:
    """Zeros (uint8) that other processes see once it was sent to them; as torch's own collate makes them."""
    storage = torch.UntypedStorage._new_shared(prod(shape) + _SHIFT_BYTES)
    return torch.empty(0, dtype=torch.uint8).set_(storage)[_SHIFT_BYTES:].view(shape)


def channels_first(rows: Tensor, *, encoded: bool) -> Tensor:
    """Rows of a batch (b h w 3) as its images; latents are so already."""
    return rows if encoded else rows.permute(0, 3, 1, 2)


def _arrive(place: tuple, rest: tuple) -> Batch:
    ring, *slot = place
    batch = Batch(_rings[ring].lend(*slot), *rest)
    batch.images = channels_first(batch.images, encoded=batch.encoded)
    return batch


def _give_back(taken: np.ndarray, worker: int, slot: int) -> None:
    taken[worker, slot] = _FREE
