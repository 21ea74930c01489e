"""Arithmetic on lists of tensors, by few kernels for all of them.

torch's optimisers have it from functions on lists that have no public names. All of ours stand here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

on_lists: Any = torch  # pyright takes its functions on lists for private


def lerp(to: Sequence[Tensor], towards: Sequence[Tensor], share: float) -> None:
    """In place, each of `to` + share (of `towards` - itself)."""
    on_lists._foreach_lerp_(list(to), list(towards), share)


def lerped(of: Sequence[Tensor], towards: Sequence[Tensor], share: float) -> list[Tensor]:
    """The same, as new tensors."""
    return list(on_lists._foreach_lerp(list(of), list(towards), share))


def multiply(each: Sequence[Tensor], by: float | Tensor) -> None:
    """In place."""
    on_lists._foreach_mul_(list(each), by)


def divide(each: Sequence[Tensor], by: Tensor) -> None:
    """In place."""
    on_lists._foreach_div_(list(each), by)


def add(each: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """In place."""
    on_lists._foreach_add_(list(each), list(others))
