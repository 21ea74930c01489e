"""What runs a build's work on many cores: processes of this machine, or tasks on Ray (`ray_engine.py`). Results come in
the order of the items, and never depend on which.

Each core runs a plain `python`, fed through pipes. Unlike `multiprocessing`, that neither forks a process
with threads in it nor imports the caller's main module again (seconds of torch in `train.py`), it needs no
`if __name__ == "__main__"` in a notebook or script, and a worker whose parent was killed ends by itself.
"""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import queue
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from diffusion_art.errors import UserError
from diffusion_art.stop_signals import SIGNALS

Item = TypeVar("Item")
Result = TypeVar("Result")
Task = TypeVar("Task")

_AHEAD_PER_WORKER = 3  # items in work or waiting per process: bounds the memory, hides uneven items


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


# ---------------------------------------------------------------------- processes of this machine


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None
) -> Generator[Result, None, None]:
    """`map(function, items)` over `workers` processes (None: one per usable core; 1: in this process).

    `function` is pickled once into each process, items and results travel one by one. Closing the iterator
    ends the processes.

    Raises:
        WorkerDiedError: a process was killed, for memory as a rule.
        Exception: whatever `function` raised, with the worker's traceback as a note.
    """
    workers = usable_cores() if workers is None else workers
    if workers <= 1:
        yield from map(function, items)
        return
    payload = pickle.dumps(function)
    crew = [_Worker(payload) for _ in range(workers)]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in crew:
        idle.put(worker)

    def run(item: Item) -> Result:
        worker = idle.get()
        try:
            return worker.call(item)
        finally:
            idle.put(worker)

    threads = ThreadPoolExecutor(workers, thread_name_prefix="pool")
    try:
        begin = functools.partial(threads.submit, run)
        yield from in_order(begin, Future.result, iter(items), deque(), ahead=_AHEAD_PER_WORKER * workers)
    finally:
        for worker in crew:
            worker.stop()
        threads.shutdown(cancel_futures=True)


def in_order(
    begin: Callable[[Any], Task], end: Callable[[Task], Any], items: Iterator[Any], pending: deque[Task], *, ahead: int
) -> Generator[Any, None, None]:
    """What the tasks of `items` give, in their order, while `ahead` of them, the `pending`, are under way."""
    pending.extend(map(begin, itertools.islice(items, ahead)))
    while pending:
        result = end(pending.popleft())
        pending.extend(map(begin, itertools.islice(items, 1)))
        yield result


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WorkerDiedError(UserError):
    """A worker process was killed from outside; what the others finished is good."""


class _Worker:
    """One process that applies the function to whatever item it is sent."""

    def __init__(self, payload: bytes) -> None:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from diffusion_art.shards.build.engine import _serve; _serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **one_thread, "PYTHONPATH": path},
        )
        self._payload: bytes | None = payload

    def call(self, item: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            if self._payload is not None:
                pickle.dump(self._payload, self._process.stdin)
                self._payload = None
            pickle.dump(item, self._process.stdin)
            self._process.stdin.flush()
            good, value = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            status = self._process.wait()
            cause = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise WorkerDiedError(
                f"a worker process ended with {cause}, most often for want of memory. "
                "Run the command again with fewer of them: workers=1 (data.build.workers of a training)."
            ) from error
        if good:
            return value
        raise value

    def stop(self) -> None:
        """End the process now; what it was doing is lost."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # unsent bytes for a process that is gone
                pass


def _serve() -> None:
    """The life of a worker process: a function, then items until the pipe closes."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # they reach the whole group; the parent decides
    inbox = sys.stdin.buffer
    outbox = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not garble the results
    try:
        function = load(pickle.load(inbox))
        while True:
            answer = apply(function, pickle.load(inbox))
            outbox.write(answer)
            outbox.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)  # the parent is done, or gone


def load(payload: bytes) -> Callable[[Any], Any]:
    """The function; one that cannot be imported here becomes one that says so."""
    try:
        return pickle.loads(payload)
    except Exception as error:
        reason = str(error)

        def refuse(item: Any) -> Any:
            raise RuntimeError(
                f"a worker process cannot load what it is to do ({reason}). "
                "Define it in a module that can be imported, or use workers=1."
            )

        return refuse


def apply(function: Callable[[Any], Any], item: Any) -> bytes:
    """(True, result) or (False, error), pickled; an error takes its traceback along as a note."""
    try:
        return pickle.dumps((True, function(item)))
    except Exception as error:
        if not isinstance(error, UserError):
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        try:
            failure = pickle.dumps((False, error))
            pickle.loads(failure)  # an error whose constructor wants more arguments fails only here
        except Exception:
            failure = pickle.dumps((False, RuntimeError(traceback.format_exc())))
        return failure
