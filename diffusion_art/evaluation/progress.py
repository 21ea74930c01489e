"""A progress bar on a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def progressing(items: Iterable[T], what: str, *, of: int) -> Iterable[T]:
    """The items, `of` many, with a bar on stderr while they are worked through."""
    if not sys.stderr.isatty() or of < 2:
        return items
    return track(items, what, total=of, console=Console(stderr=True), transient=True)
