"""The signals that ask a run to stop: from a terminal, `timeout`, a scheduler, a service manager or a container.

Some of these send them to one process, others to all that a run has. So the other processes of a run do not end by
them: they pass them on to the one that trains (data/workers.py, streaming/server/process.py), which finishes its step
first.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
AGAIN_S = 1.0  # one Ctrl-C may come twice, from the terminal and passed on; a second one comes later than this

Handler = Callable[[int, FrameType | None], Any]


def exit_status(number: int) -> int:
    """Of a process that ended because of signal `number`, as shells count it."""
    return 128 + number


def stop_signal(status: int) -> int | None:
    """The stop signal by which a child of ours ended, given the status that `Popen` tells."""
    return next((number for number in SIGNALS if status in (exit_status(number), -number)), None)


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Inside the block `handler` hears the stop signals. Only the main thread can do so; in another nothing happens."""
    before: dict[int, Any] = {}
    try:
        for number in SIGNALS:
            before[number] = signal.signal(number, handler)
    except ValueError:  # a notebook's thread, a test's
        pass
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def blocked() -> Iterator[None]:
    """Inside the block stop signals wait, also in processes started there, until `unblock` or the end of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """In a process started inside `blocked`: hear them again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
