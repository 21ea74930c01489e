"""The processes of `shards/build/engine.py`: order, errors, and processes that never outlive their use."""

from __future__ import annotations

import itertools
import math
import operator
import os
import signal
import subprocess
import sys
import time
import types
from contextlib import closing

import psutil
import pytest

from diffusion_art.shards.build.engine import WorkerDiedError, ordered_map, usable_cores
from tests.fakes_sources import raise_fussy_error


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    numbers = [9000, *range(20), 5000, 3]  # the first is long in work while the others wait
    assert list(ordered_map(math.factorial, numbers, workers=workers)) == list(map(math.factorial, numbers))


def test_items_are_drawn_only_a_little_ahead() -> None:
    endless = itertools.count()
    with closing(ordered_map(operator.neg, endless, workers=2)) as results:
        assert list(itertools.islice(results, 50)) == [-number for number in range(50)]
    assert next(endless) < 50 + 2 * 8


def test_an_error_comes_at_its_place_with_the_workers_traceback() -> None:
    results = ordered_map(int, ["1", "2", "three", "4"], workers=2)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError, match="three") as caught:
        next(results)
    assert "in a worker process" in "".join(caught.value.__notes__)


def test_an_error_that_cannot_travel_is_told_as_text() -> None:
    with pytest.raises(RuntimeError, match="FussyError: 1 of two"):
        list(ordered_map(raise_fussy_error, [1, 2], workers=2))
    with pytest.raises(TypeError, match="cannot pickle"):
        list(ordered_map(memoryview, [b"nor can a view"], workers=2))


def test_a_worker_that_dies_is_no_hang() -> None:
    with pytest.raises(WorkerDiedError, match=r"exit status 7.*workers=1 \(data\.build\.workers of a training\)"):
        list(ordered_map(os._exit, [7, 7, 7], workers=2))


def test_a_function_that_workers_cannot_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("a_notebook_cell")
    exec("def double(number): return 2 * number", module.__dict__)
    monkeypatch.setitem(sys.modules, "a_notebook_cell", module)
    with pytest.raises(RuntimeError, match=r"cannot load.*a_notebook_cell.*workers=1"):
        list(ordered_map(module.double, [1, 2], workers=2))
    assert list(ordered_map(module.double, [1, 2], workers=1)) == [2, 4]


def test_what_a_worker_prints_does_not_garble_its_results() -> None:
    assert list(ordered_map(print, ["a", "b", "c"], workers=2)) == [None] * 3


def test_closing_early_ends_the_processes() -> None:
    before = set(psutil.Process().children())
    results = ordered_map(time.sleep, [0.01, 60, 60, 60], workers=2)
    next(results)
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 5
    assert set(psutil.Process().children()) <= before


def test_workers_end_when_their_parent_is_killed() -> None:
    script = (
        "import time; from diffusion_art.shards.build.engine import ordered_map\n"
        "for _ in ordered_map(time.sleep, [0.05] * 10_000, workers=2): print(flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()  # both work now
        children = psutil.Process(parent.pid).children()
        parent.send_signal(signal.SIGKILL)
    assert len(children) == 2
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert (len(gone), alive) == (2, [])


def test_usable_cores_are_at_least_one() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
