"""What a run sees when everything fails: exactly the order, as a pure function computed here says it is."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from diffusion_art.data.datamodule import StreamDataModule
from diffusion_art.data.workers import TimedLoader
from diffusion_art.streaming.client.readers import ReadRequest
from diffusion_art.streaming.client.shard_reader import ShardReader
from diffusion_art.streaming.server.process import ServerProcess
from diffusion_art.tensors import Batch
from tests.streaming.truth import SEED, expected_keys


def open_module(
    folder: Path,
    *,
    url: str,
    batch: int,
    workers: int,
    steps: int,
    rank: int = 0,
    world: int = 1,
    state: dict | None = None,
) -> StreamDataModule:
    """The data module of one rank, as `train` sets it up, resumed from `state` where there is one."""
    module = StreamDataModule(
        shards=folder,
        url=url,
        image_size_px=16,
        global_batch_size=batch,
        num_workers=workers,
        seed=SEED,
        window=2,
    )
    cpu = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(
        global_rank=rank, world_size=world, max_steps=steps, accumulate_grad_batches=1, strategy=cpu
    )
    module.trainer = trainer  # type: ignore[assignment]
    if state is not None:
        module.load_state_dict(state)
    module.setup()
    return module


def train(module: StreamDataModule, steps: int) -> list[Batch]:
    """The next batches of a run, each one's cursor stored as the callback does once it was trained on."""
    loader, trained = module.train_dataloader(), []
    for batch in itertools.islice(loader, steps):
        trained.append(batch)
        module.cursor = batch.cursor
    stop_workers(loader)
    return trained


def stop_workers(loader: TimedLoader) -> None:
    """As Lightning does when a run ends; garbage collection would leave them waiting for five seconds."""
    if loader._iterator is not None:
        loader._iterator._shutdown_workers()  # type: ignore[attr-defined]


class Killer:
    """Kills the server, SIGKILL, at `kills` random moments, each time the one that took the last one's place."""

    def __init__(self, server: ServerProcess, *, kills: int, seed: int = 0) -> None:
        self._server, self._wanted, self._chance = server, kills, random.Random(seed)
        self._stop = threading.Event()
        self.killed: list[int] = []
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    @property
    def done(self) -> bool:
        return len(self.killed) == self._wanted

    def _work(self) -> None:
        while not self.done and not self._stop.wait(self._chance.uniform(0.0, 0.25)):
            pid = self._server.pid
            if pid in self.killed:  # not replaced yet
                continue
            try:
                family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.killed.append(pid)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def run_under_fire(folder: Path, *, kills: int, steps: int, workers: int) -> None:
    """Read at least `steps` batches of 8 while the server is killed `kills` times."""
    module = open_module(folder, url="auto", batch=8, workers=workers, steps=200_000)
    assert module.origin.server is not None
    killer = Killer(module.origin.server, kills=kills)
    keys, cursors = [], []
    pictures = ShardReader(folder)
    try:
        loader = module.train_dataloader()
        for batch in loader:
            keys += batch.keys
            cursors.append(batch.cursor)
            if killer.done and len(cursors) >= steps:
                break
            if len(cursors) % 50 == 0:
                (stored,) = pictures.read([ReadRequest("train", SEED, batch.positions[0], batch.positions[-1] + 1)])
                assert [sample.caption for sample in stored] == batch.captions
            time.sleep(0.002)  # a step of training
        stop_workers(loader)
    finally:
        killer.stop()
        module.teardown()
    assert len(set(killer.killed)) == kills
    assert cursors == list(range(1, len(cursors) + 1))
    assert keys == expected_keys(folder, 0, 8 * len(cursors))


def test_a_run_whose_server_is_killed_sees_what_it_would_have_seen(painter_shards: Path):
    run_under_fire(painter_shards, kills=2, steps=100, workers=1)


@pytest.mark.slow
def test_a_run_whose_server_is_killed_twenty_times_sees_what_it_would_have_seen(painter_shards: Path):
    run_under_fire(painter_shards, kills=20, steps=500, workers=2)


BATCH, STEPS, CUTS = 12, 24, (0, 9, 17, 24)  # about ten batches to an epoch: two boundaries, and two resumes between


@pytest.fixture(scope="module")
def uninterrupted(painter_shards: Path) -> list[Batch]:
    module = open_module(painter_shards, url="shards", batch=BATCH, workers=0, steps=STEPS)
    whole = train(module, STEPS)
    assert [key for batch in whole for key in batch.keys] == expected_keys(painter_shards, 0, BATCH * STEPS)
    assert module.info.splits["train"] * 2 < BATCH * STEPS
    return whole


def resumed_run(folder: Path, url: str, workers: tuple[int, int, int], world: int) -> list[list[Batch]]:
    """The batches of each rank of a run that is cut and resumed twice, each part with its own number of workers."""
    ranks = []
    for rank in range(world):
        batches: list[Batch] = []
        state = None
        for number, upto in zip(workers, CUTS[1:], strict=True):
            module = open_module(
                folder, url=url, batch=BATCH, workers=number, steps=STEPS, rank=rank, world=world, state=state
            )
            batches += train(module, upto - len(batches))  # what the loader has ahead is lost with it
            state = module.state_dict()
            module.teardown()
        ranks.append(batches)
    return ranks


def same_as_uninterrupted(ranks: list[list[Batch]], whole: list[Batch]) -> None:
    for k, (expected, *parts) in enumerate(zip(whole, *ranks, strict=True)):
        assert [key for part in parts for key in part.keys] == expected.keys, f"batch {k}"
        assert [caption for part in parts for caption in part.captions] == expected.captions
        assert {part.cursor for part in parts} == {expected.cursor}
        assert torch.equal(torch.cat([part.images for part in parts]), expected.images)


@pytest.mark.parametrize(("workers", "resumed", "world"), [(0, 1, 1), (2, 3, 2), (1, 0, 4)])
def test_workers_ranks_and_resumes_change_nothing(
    painter_shards: Path, painter_server: ServerProcess, uninterrupted: list[Batch], workers, resumed, world
):
    parts = resumed_run(painter_shards, painter_server.url, (workers, resumed, workers), world)
    same_as_uninterrupted(parts, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("resumed", [0, 1, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_all_numbers_of_workers_ranks_and_resumes_change_nothing(
    painter_shards: Path, painter_server: ServerProcess, uninterrupted: list[Batch], workers, resumed, world
):
    parts = resumed_run(painter_shards, painter_server.url, (workers, resumed, workers), world)
    same_as_uninterrupted(parts, uninterrupted)
