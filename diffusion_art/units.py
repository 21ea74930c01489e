"""Seconds, bytes and counts as people read them, and a bar of what is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def duration(seconds: float) -> str:
    """In the unit that suits: 40 s, 12 min, 3.5 h, 23 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def counted(count: int, noun: str = "picture") -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def counted_with(count: int, one: str, more: str) -> str:
    """`1 picture has`, `2 pictures have`."""
    return f"{counted(count)} {one if count == 1 else more}"


def progress_bar(shown: bool, *figures: ProgressColumn) -> Progress:
    """On standard error: what is done, how much of it, `figures`, and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), *figures, TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)
