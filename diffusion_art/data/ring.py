"""Batch memory that loader workers and the trainer share, and use again and again.

Fresh shared memory costs a page fault for every 4 KiB: a tenth of the time a JPEG takes to decode, and half of it in
a virtual machine. So a worker keeps the memory of the batches that it has sent, and when the trainer has let go of
the last view of one, fills it anew and sends its number.
"""

from __future__ import annotations

import itertools
import os
import weakref
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from diffusion_art.tensors import Batch

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
