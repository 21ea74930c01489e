"""Parts of a step by name, for a measurement of where its time goes; where nobody measures, they cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Listener(NamedTuple):
    """Hears the names of the parts that begin, and that the innermost one is over."""

    enter: Callable[[str], None]
    leave: Callable[[], None]


_listeners: list[Listener] = []


@contextmanager
def span(name: str) -> Iterator[None]:
    """Inside the block time is spent on `name`."""
    heard = list(_listeners)
    for listener in heard:
        listener.enter(name)
    try:
        yield
    finally:
        for listener in heard:
            listener.leave()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside the block `listener` hears every span of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
