"""Tasks on Ray, on a Ray that is started here and stopped after, or on a cluster.

A worker or machine that dies takes nothing along but its pieces of work, which Ray gives to others. Only so many pieces
are under way at once, so that memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import re
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

from diffusion_art import __version__
from diffusion_art.errors import UserError
from diffusion_art.extras import install_command
from diffusion_art.net import answers
from diffusion_art.shards.build.engine import WorkerDiedError, apply, in_order, load, usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 3  # of a piece of work whose worker died
_AHEAD_PER_CORE = 3  # pieces in work or waiting per core
_ANSWER_S = 5.0  # in which a cluster has to answer
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_STARTS = 3  # Ray gives up on a start after 30 s, which a busy machine may need

_held: dict[str, Callable[[Any], Any]] = {}  # in a worker: the function of the map it works for


@dataclass(frozen=True)
class RayEngine:
    """Tasks on the cluster at `address` (HOST:PORT), None: on a Ray of this machine that lives as long as the map.

    `workers` are tasks at once; None: one per core of the machine or cluster. A Ray that this process is connected to
    already is used, and left as it is.

    Raises:
        UserError: Ray is not installed, or `address` is none. `map` raises it where no cluster answers.
    """

    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise UserError(f"engine=ray needs Ray: {install_command('ray')}. Or use engine=local.")
        if self.address is not None and not re.fullmatch(r"[^\s/:]+:\d{1,5}", self.address):
            raise UserError(
                f"ray.address={self.address} is no address of a cluster: give HOST:PORT, as `ray start --head` prints "
                "it, such as ray.address=127.0.0.1:6379."
            )

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        payload = pickle.dumps(function)
        with self.connected() as cores:
            yield from _mapped(payload, iter(items), ahead=self._ahead(cores))

    def _ahead(self, cores: int) -> int:
        if self.address is not None and self.workers is not None:
            return self.workers
        return _AHEAD_PER_CORE * max(1, cores)

    @contextlib.contextmanager
    def connected(self) -> Iterator[int]:
        """Inside the block Ray is there; how many cores it has."""
        if self.address is not None:
            _check_answers(self.address)
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        with contextlib.ExitStack() as stack:
            if ray.is_initialized():
                pass
            elif self.address is not None:
                _start(address=self.address, **quiet)
                stack.callback(ray.shutdown)
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
                cores = self.workers or usable_cores()
                _start(address="local", num_cpus=cores, include_dashboard=False, _temp_dir=folder, **quiet)
                stack.callback(ray.shutdown)
            yield int(ray.cluster_resources().get("CPU", 1))


def _check_answers(address: str) -> None:
    """UserError where nothing listens there. Ray itself would wait for minutes, and then end the process."""
    host, _, port = address.rpartition(":")
    if not answers(host, int(port), within_s=_ANSWER_S):
        raise UserError(
            f"no Ray answers at ray.address={address}. Start one there with `ray start --head`, or leave ray.address "
            "out: then one is started on this machine."
        )


def _start(**settings: Any) -> None:
    import ray

    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(**settings)
            return
        except Exception as error:  # Ray raises its own, Python's, and plain `Exception`
            ray.shutdown()
            if attempt == _STARTS or "timed out during startup" not in str(error):
                reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
                raise UserError(f"Ray could not be started ({reason}). Use engine=local.") from error


def _mapped(payload: bytes, items: Iterator[Any], *, ahead: int) -> Generator[Any, None, None]:
    import ray

    token, function = uuid.uuid4().hex, ray.put(payload)
    task: Any = ray.remote(num_cpus=1, max_retries=RETRIES)(_task)
    pending: deque[Any] = deque()
    try:
        begin = functools.partial(task.remote, token, __version__, [function])
        yield from in_order(begin, _result, items, pending, ahead=ahead)
    finally:
        for left in pending:
            ray.cancel(left, force=True)


def _result(reference: Any) -> Any:
    """What a task gave, once it has ended."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        good, value = pickle.loads(ray.get(reference))
    except RayTaskError as error:  # it did not come to the function
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"the machines of the Ray cluster cannot do this work ({reason}). Install diffusion-art {__version__} on "
            "each of them."
        ) from error
    except RayError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise WorkerDiedError(
            f"Ray gave a piece of work up after {RETRIES} further attempts ({reason}), most often for want of memory. "
            "Run the command again with fewer at once: workers=1 (data.build.workers of a training)."
        ) from error
    if good:
        return value
    raise value


def _task(token: str, version: str, function: list[Any], item: Any) -> bytes:
    """In a worker: one piece of work, answered as `pool.apply` does. The function travels once to each worker."""
    if version != __version__:
        asked = f"the build runs diffusion-art {version}, and this machine of the Ray cluster has {__version__}"
        return pickle.dumps((False, UserError(f"{asked}. Install the same on all.")))
    if token not in _held:
        import ray

        _held.clear()
        _held[token] = load(ray.get(function[0]))
    return apply(_held[token], item)
