"""What runs a build's work on many cores: processes of this machine, or tasks on Ray. Results never depend on which."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from diffusion_art.errors import UserError
from diffusion_art.shards.build.pool import ordered_map

Item = TypeVar("Item")
Result = TypeVar("Result")

ENGINES = ("local", "ray")


@runtime_checkable
class Engine(Protocol):
    """`map(function, items)`: the results in the order of the items, the items drawn only a little ahead of them.

    `function` can be pickled, and depends on nothing but its item. Closing the iterator ends the work.

    Raises:
        WorkerDiedError: processes were killed, more often than the engine repeats their work.
        Exception: whatever `function` raised, with the worker's traceback as a note.
    """

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]: ...


@dataclass(frozen=True)
class LocalEngine:
    """`workers` processes of this machine; None: one per usable core, 1: this process."""

    workers: int | None = None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        return ordered_map(function, items, workers=self.workers)


def engine_named(name: str, *, workers: int | None = None, ray: Mapping[str, Any] | None = None) -> Engine:
    """The engine of a command's `engine`, `workers` and `ray` keys. Nothing is started before its `map`.

    Raises:
        UserError: no such engine or key, or Ray is not installed.
    """
    if name not in ENGINES:
        raise UserError(f"engine={name} is not one of {', '.join(ENGINES)}.")
    settings = dict(ray or {})
    address = settings.pop("address", None)
    if settings:
        raise UserError(f"there is no ray.{min(settings)}; there is ray.address.")
    if name == "local":
        if address is not None:
            raise UserError(f"ray.address={address} is for engine=ray: give that too.")
        return LocalEngine(workers)
    from diffusion_art.shards.build.ray_engine import RayEngine

    return RayEngine(workers, address)
