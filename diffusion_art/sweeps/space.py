"""A sweep's search space: Hydra's own words for several values, as Optuna's distributions.

optim.lr=tag(log,interval(1e-4,1e-2))    a number of the interval, evenly by its logarithm
model.depth=int(interval(2,9))           a whole number, 2 to 8: Hydra's intervals leave their end out
model/schedule=choice(cosine,flow)       one of these; model/schedule=cosine,flow is the same
data.batch=range(16,65,16)               16, 32, 48 or 64
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from diffusion_art.errors import UserError

Space = dict[str, BaseDistribution]  # by the key as it is typed, `+` included


def split(overrides: Iterable[Override]) -> tuple[Space, list[str]]:
    """(what is searched, the overrides that every trial has). Of a key given twice the last counts.

    Raises:
        UserError: a space that no search can use.
    """
    space: Space = {}
    fixed: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        space.pop(key, None)
        fixed.pop(key, None)
        if override.is_sweep_override():
            space[key] = distribution(override)
        elif override.is_delete():
            fixed[key] = str(override.input_line)
        else:
            fixed[key] = f"{key}={override.get_value_element_as_str()}"
    return space, list(fixed.values())


def distribution(override: Override) -> BaseDistribution:
    """What Optuna draws for one override."""
    value: Any = override.value()
    try:
        if override.is_interval_sweep():
            return _interval(value)
        if override.is_range_sweep() and not value.shuffle:
            return _range(value)
        return _choice(list(override.sweep_iterator(Transformer.identity)))
    except ValueError as error:
        raise UserError(f"`{override.input_line}` cannot be searched: {error}") from error


def _interval(asked: IntervalSweep) -> BaseDistribution:
    low, high = asked.start, asked.end
    assert low is not None
    assert high is not None
    log = "log" in asked.tags
    if log and low <= 0:
        raise ValueError(f"the logarithm needs an interval above 0, and this one begins at {low:g}.")
    if "int" in asked.tags or isinstance(low, int):
        return IntDistribution(int(low), _last(int(low), high), log=log)
    if low >= high:
        raise ValueError(f"the interval from {low:g} to {high:g} is empty.")
    return FloatDistribution(low, high, log=log)


def _last(low: int, high: float) -> int:
    """The largest whole number below `high`."""
    last = math.ceil(high) - 1
    if last < low:
        raise ValueError(f"no whole number lies in the interval from {low} to {high:g}.")
    return last


def _range(asked: RangeSweep) -> BaseDistribution:
    """The values that a multi-run would try; one whose step goes down is turned round."""
    values = sorted(asked.range())
    if not values:
        raise ValueError("the range is empty.")
    step = abs(asked.step)
    if isinstance(values[0], int) and isinstance(step, int):
        return IntDistribution(values[0], values[-1], step=step, log=False)
    return FloatDistribution(float(values[0]), float(values[-1]), step=float(step))


def _choice(values: list[Any]) -> CategoricalDistribution:
    """Numbers stay numbers; all else is a text in Hydra's grammar."""
    kept = [value if isinstance(value, int | float) else Transformer.str(value) for value in values]
    return CategoricalDistribution(list(dict.fromkeys(kept)))


def overrides_of(params: dict[str, Any]) -> list[str]:
    """The overrides that give a job these values: `["optim.lr=0.001"]`."""
    return [f"{key}={text(value)}" for key, value in params.items()]


def text(value: Any) -> str:
    """A value of the search as Hydra reads it back, to the last bit of a float."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else str(value)


def size(space: Space) -> int | None:
    """How many different trials there are; None where an interval makes them endless."""
    return math.prod(sizes) if all(sizes := [_size(one) for one in space.values()]) else None


def _size(one: BaseDistribution) -> int:
    if isinstance(one, CategoricalDistribution):
        return len(one.choices)
    if isinstance(one, IntDistribution):
        return (one.high - one.low) // one.step + 1
    assert isinstance(one, FloatDistribution)
    return round((one.high - one.low) / one.step) + 1 if one.step else 0


def examples(space: Space) -> list[dict[str, Any]]:
    """Values for a few trials, among which is every choice."""
    first = {key: _example(one) for key, one in space.items()}
    choices = {key: one.choices for key, one in space.items() if isinstance(one, CategoricalDistribution)}
    return [first] + [first | {key: choice} for key, several in choices.items() for choice in several[1:]]


def _example(one: BaseDistribution) -> Any:
    return one.choices[0] if isinstance(one, CategoricalDistribution) else one.low  # type: ignore[attr-defined]


def described(space: Space) -> list[str]:
    """A space as text, the same for the same space."""
    return [f"{key} in {one}" for key, one in space.items()]
