"""What all clients of protocol v1 share: one stream, whose every position is handed out once.

The stream is the endless order of the training split (order.py): epoch after epoch, each sample once in each.
Protocol v1 knows no positions: a client says "give me 64" and takes the next that nobody was given. So the server
keeps books. A position that a client was sent is *held* until the client's next request shows that it got there;
the positions of a client that goes away before that return, and are handed out before any new one.

* `eirtrain` reads the stream to its end whatever its `n_epochs`, so the server decides how long that is: `epochs`,
  after which every client is told so, or None, and the stream has no end.
* A reset by a client that has had a single answer gives that answer back and changes nothing else: `eirtrain` throws
  the first sample of each connection away and resets.
* Any other reset begins the stream anew, unless somebody else is reading it: nobody is sent a sample twice because
  of what another client does. Once it is over, a client that resets before it asks for data need not be alone: a
  worker of `eirtrain` that comes late asks first.
* When nobody has been connected for `idle_s`, or since the end, the stream begins anew: a client that comes then is a
  new training and gets what it would get from a new server. A server that was stopped counts from when it runs again.

Validation samples are left out for good, on all connections, after any reset.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from diffusion_art.errors import UserError
from diffusion_art.shards.mixture import Shards
from diffusion_art.shards.order import by_group, draws
from diffusion_art.streaming.eir.ledger import Ledger, cannot_keep

SPLIT = "train"  # v1 clients choose their own validation samples from it; ours are sent to nobody


@dataclass
class EirClient:
    """One connection."""

    id: int
    answers: int = 0  # data sent, or about to be
    seen: int = 0  # answers that had been sent before its latest request
    reset_at: int = 0  # answers before its latest reset
    first: list[np.ndarray] = field(default_factory=list)  # positions of the first answer after that
    over: bool = False  # it has been told that the stream is over

    def told_of_the_end(self) -> None:
        """It is told that the stream is over, by a request that came after all that it was sent."""
        self.over, self.seen = True, self.answers


class EirPass:
    """The stream of the training split of `shards`, in the endless order of `seed`, for `epochs` epochs.

    `path` is a file on a local disk, by which several server processes share the stream; it outlives a killed
    process, and is made when the first client comes. None keeps everything in memory. `max_batch_size` is the most
    samples a client gets in one answer. Not for several threads at once, nor for use after a fork.

    UserError when the file cannot be used or belongs to the stream of another data set or seed, or for `epochs`
    below 1.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        seed: int = 0,
        epochs: int | None = None,
        path: str | Path | None = None,
        max_batch_size: int = 1024,
        idle_s: float = 60.0,
    ) -> None:
        if epochs is not None and (type(epochs) is not int or epochs < 1):
            raise UserError(f"eir.epochs={epochs!r} is not a number of epochs; set 1 or more, or null for no end")
        self.shards, self.seed, self.max_batch_size = shards, seed, max_batch_size
        self.samples = shards.splits.get(SPLIT, 0)
        self._end = 0 if self.samples == 0 else 2**62 if epochs is None else epochs * self.samples
        self._idle_s = idle_s
        self._path = path
        self._opened: Ledger | None = None
        self._began_at = time.time()
        if path is not None and Path(path).exists():
            self._opened = self._open()
        elif path is not None and not Path(path).parent.is_dir():
            raise cannot_keep(path, f"there is no folder {Path(path).parent}")

    def close(self) -> None:
        """Let go of the file."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _ledger(self) -> Ledger:
        """Opened when the first client of protocol v1 comes."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> Ledger:
        ledger = Ledger(self._path, digest=self.shards.digest, seed=self.seed)
        with ledger.transaction():
            ledger.bury_the_dead()
        return ledger

    def join(self) -> EirClient:
        """A client has connected."""
        with self._ledger.transaction():
            idle = time.time() - max(self._ledger.left_at(), self._began_at) > self._idle_s
            if not self._ledger.count("clients") and (idle or self._is_over()):
                self._ledger.rewind()
            return EirClient(self._ledger.enter())

    def leave(self, client: EirClient) -> None:
        """It has gone: what it was sent and has not seen returns."""
        with self._ledger.transaction():
            self._ledger.release(client.id, last=client.seen)
            self._ledger.remove(client.id)

    def take(self, client: EirClient, count: int, *, answer: int) -> np.ndarray:
        """The next positions (int64) for its answer number `answer` (from 1): `count`, or fewer at the end."""
        with self._ledger.transaction():
            self._ledger.release(client.id, last=client.seen)
            positions = self._next(count)
            if len(positions) < count:
                self._ledger.bury_the_dead()
                positions = np.concatenate([positions, self._next(count - len(positions))])
            if len(positions):
                self._ledger.mark(client.id, reading=True)
                self._ledger.hold(client.id, answer, positions)
        if answer == client.reset_at + 1:
            client.first.append(positions)
        return positions

    def give_back(self, client: EirClient, positions: np.ndarray, *, answer: int) -> None:
        """Some of `answer` is not sent after all."""
        with self._ledger.transaction():
            kept = [np.setdiff1d(held, positions) for held in self._ledger.held(client.id, answer)]
            self._ledger.release(client.id, first=answer, last=answer)
            for held in kept:
                self._ledger.hold(client.id, answer, held)
            self._ledger.put_back(positions)
        if answer == client.reset_at + 1:
            client.first = kept

    def reset(self, client: EirClient) -> None:
        """Begin the stream anew, or only give an only answer back; see the head of this file."""
        with self._ledger.transaction():
            self._ledger.release(client.id)
            if client.answers == client.reset_at + 1 and not client.over:
                for positions in client.first:
                    self._ledger.put_back(positions)
            else:
                self._ledger.bury_the_dead()
                begun = client.answers > client.reset_at or client.over
                if not self._ledger.readers(besides=client.id) or (self._is_over() and not begun):
                    self._ledger.rewind()
            self._ledger.mark(client.id, reading=False)
        client.reset_at, client.first, client.over = client.answers, [], False

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """The samples (int64, numbers within the split) at these positions."""
        epochs, places = np.divmod(positions, self.samples)
        return by_group(epochs, places, lambda epoch, here: self.shards.order(SPLIT, self.seed, epoch)(here))

    def draws(self, positions: np.ndarray) -> np.ndarray | None:
        """What chooses the captions at these positions: the same as for a v2 client that reads under our seed."""
        if not self.shards.tells_several(SPLIT):
            return None
        epochs, places = np.divmod(positions, self.samples)
        told = partial(draws, SPLIT, self.seed)
        return by_group(epochs, places, told, kind=np.uint64)

    def exclude(self, ids: Iterable[str]) -> None:
        """Never hand these samples out again. What is no key of ours (16 hex digits) cannot be one of them."""
        with self._ledger.transaction():
            self._ledger.exclude(int(name, 16) for name in ids if _is_key(name))

    def excluded(self, keys: np.ndarray) -> np.ndarray:
        """Which of these keys (uint64) are validation samples (bool)."""
        return np.isin(keys, self._ledger.validation_keys())

    def status(self) -> dict[str, int]:
        """What a client that asks for it is told."""
        with self._ledger.transaction():
            position = self._ledger.next() - self._ledger.count("returned")
            return {
                "active_connections": self._ledger.count("clients"),
                "current_position": position,
                "epoch": position // max(1, self.samples),
                "samples": self.samples,
                "validation_ids_count": self._ledger.count("validation"),
            }

    def _is_over(self) -> bool:
        return self._ledger.next() >= self._end and not self._ledger.count("returned")

    def _next(self, count: int) -> np.ndarray:
        """Positions that returned, the lowest ones before the others, and then new ones."""
        returned, first = self._ledger.take_returned(count), self._ledger.next()
        stop = min(max(first, self._end), first + count - len(returned))
        if stop > first:
            self._ledger.advance(stop)
        return np.array([*returned, *range(first, stop)], np.int64)


def _is_key(name: str) -> bool:
    return len(name) == 16 and set(name) <= set("0123456789abcdef")
