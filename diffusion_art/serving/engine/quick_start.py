"""A quicker start for a process that paints and never compiles.

diffusers, when imported, marks a few of its classes and functions for torch's compiler, and torchvision, which it
imports, asks whether there is one. For that the compiler's front end, `torch._dynamo`, is imported whole, which takes
a second of CPU time: a fifth of a server's start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.runs import Run

FRONT_END, UTILITIES = "torch._dynamo", "torch._dynamo.utils"


def load_quickly(run: Run) -> TextToImage:
    """The run's model, imported and loaded without torch's compiler where that will do.

    Raises:
        UserError: the checkpoint cannot be read or is no model of ours.
    """
    try:
        with compiler_left_out():
            return run.model
    except Exception:  # a checkpoint's fault is found again; a diffusers that asks more of the compiler gets it whole
        return run.model


@contextmanager
def compiler_left_out() -> Iterator[None]:
    """What is imported within marks nothing for torch's compiler, so it is not for processes that compile.

    Where the compiler is there already, nothing is changed. Imported later, it is the real one.
    """
    if FRONT_END in sys.modules:
        yield
        return
    front_end, utilities = ModuleType(FRONT_END), ModuleType(UTILITIES)
    stand_ins = {FRONT_END: front_end, UTILITIES: utilities}
    vars(front_end).update(__path__=[], allow_in_graph=_as_it_is, disable=_as_it_is, utils=utilities)
    vars(utilities).update(is_compile_supported=lambda device: False)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _as_it_is(fn: Callable | None = None, *how: Any, **more: Any) -> Callable:
    """A decorator, with or without arguments, that decorates nothing."""
    return _as_it_is if fn is None else fn
