"""A progress bar on a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def progressing(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with a bar on stderr while they are worked through."""
    if not sys.stderr.isatty() or len(items) < 2:
        return items
    return track(items, what, console=Console(stderr=True), transient=True)
