"""What loader workers are told of their trainer."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.data import DataLoader, IterableDataset

from diffusion_art.data.workers import Crew, LostWorker, TimedLoader


def test_workers_can_be_dismissed_whatever_mode_torch_is_in():
    """A loader is freed at any moment."""
    crew = Crew()
    with FakeTensorMode():
        crew.dismiss()
    assert crew._leaving.value == 1


def test_started_workers_hear_of_it():
    crew = Crew()
    batches = iter(DataLoader(range(4), num_workers=1, worker_init_fn=crew, multiprocessing_context="spawn"))
    assert len(list(batches)) == 4
    crew.dismiss()


class Left:
    """Garbage that only a collection frees. It says who freed it."""

    def __init__(self, freed: Path) -> None:
        self.freed, self.itself = freed, self

    def __del__(self) -> None:
        with self.freed.open("a") as file:
            print(os.getpid(), file=file)


class Collecting(IterableDataset):
    def settle(self) -> None: ...

    def __iter__(self) -> Iterator[int]:
        gc.collect()
        yield os.getpid()


def test_workers_leave_what_the_trainer_left_to_it(tmp_path):
    gc.collect()
    gc.disable()
    try:
        Left(tmp_path / "freed")
        loader = TimedLoader(Collecting(), num_workers=1, batch_size=None, worker_init_fn=Crew())
        assert list(loader) != [os.getpid()]
    finally:
        gc.enable()
    gc.collect()
    assert (tmp_path / "freed").read_text().split() == [str(os.getpid())]


class Until:
    """Is read from a queue once the file is there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return _wait_for, (self.file,)


def _wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)


class Dying(IterableDataset):
    """Its worker is killed after it announced a tensor and before it handed the memory over.

    Linux closes the sockets of a killed process before its parent can see that it is dead; here that takes longer.
    """

    def __init__(self, closed: Path) -> None:
        self.closed = closed

    def settle(self) -> None: ...

    def __iter__(self) -> Iterator[tuple]:
        yield Until(self.closed), torch.zeros(4)
        time.sleep(0.2)  # until the queue's thread wrote it
        os.closerange(3, 1024)
        self.closed.touch()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)


class Failing(Dying):
    def __iter__(self) -> Iterator[tuple]:
        raise ConnectionResetError("the disk is gone")
        yield


def test_a_worker_that_dies_while_it_hands_its_batch_over_is_lost(tmp_path):
    loader = TimedLoader(Dying(tmp_path / "closed"), num_workers=1, batch_size=None)
    with pytest.raises(LostWorker, match="a worker that prepares the data was killed"):
        next(iter(loader))


def test_an_error_of_the_data_is_told_as_it_is(tmp_path):
    with pytest.raises(ConnectionResetError, match="the disk is gone"):
        next(iter(TimedLoader(Failing(tmp_path / "closed"), num_workers=1, batch_size=None)))
