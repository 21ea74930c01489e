"""How long a run is: one number of optimiser steps, settled before anything is built that depends on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.units import counted

ADVICE = "Give trainer.max_steps=N, or trainer.max_epochs=N for passes over the data."


def steps_of(epochs: float, *, pictures: int, per_step: int) -> int:
    """Steps until each of `pictures` was seen `epochs` times. The order has no gaps, so the last step takes a few of
    the next pass.
    """
    return max(1, math.ceil(epochs * pictures / per_step))


def settled_steps(
    trainer: dict[str, Any], *, typed: Collection[str], per_step: int, pictures: Callable[[], int]
) -> tuple[int, str | None]:
    """The steps of a run, and a sentence about them where `max_epochs` had a say.

    Negative or null is no limit. Of two limits the shorter one counts; but where `typed`, the keys of the command line,
    has `max_epochs` and not `max_steps`, the number of steps is an experiment's, and the epochs take its place.
    `pictures` counts those of the training split.

    Raises:
        UserError: no limit, a limit of nothing, or one that is not a number.
    """
    steps, epochs = (_limit(trainer, name) for name in ("max_steps", "max_epochs"))
    if epochs is None:
        if steps is None:
            timed = f" trainer.max_time={trainer['max_time']} may end it before." if trainer.get("max_time") else ""
            raise UserError(f"trainer.max_steps={trainer.get('max_steps')} gives the run no end. {ADVICE}{timed}")
        return int(steps), None
    count = pictures()
    whole = steps_of(epochs, pictures=count, per_step=per_step)
    said = f"trainer.max_epochs={epochs:g}: {counted(whole, 'step')} of {counted(per_step)} make it, of {count:,}"
    replaced = "trainer.max_epochs" in typed and "trainer.max_steps" not in typed
    if steps is not None and steps < whole and not replaced:
        return int(steps), f"{said}; trainer.max_steps={steps:g} ends the run before"
    return whole, said


def _limit(trainer: dict[str, Any], name: str) -> float | None:
    value = trainer.get(name)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (name == "max_steps" and value != int(value)):
        raise UserError(f"trainer.{name}={value} is not a number of {name.removeprefix('max_')}. {ADVICE}")
    if value == 0:
        raise UserError(f"trainer.{name}=0 trains nothing. {ADVICE}")
    return float(value) if value > 0 else None
