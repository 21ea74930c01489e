"""`shards/build/engine.py`, `ray_engine.py`: the same shards on Ray, with workers killed on the way."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from PIL import Image

from diffusion_art.errors import UserError
from diffusion_art.shards.build.build import build_shards
from diffusion_art.shards.build.engine import LocalEngine, WorkerDiedError, engine_named
from diffusion_art.shards.build.ray_engine import RayEngine
from diffusion_art.sources.base import Item, Picture
from diffusion_art.sources.folder.folder import ImageFolder
from tests.fakes_sources import Swatches
from tests.shards.build.test_build import contents

SMALL = {"image_size_px": 16, "val_fraction": 0.2, "progress": False}
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


class Deadly(Swatches):
    """Swatches; the process that first comes to number 40 is killed there, once it has touched the file `mark`."""

    def __init__(self, count: int, *, mark: Path) -> None:
        super().__init__(count)
        self._mark = mark

    def pictures(self, chunk: range) -> Iterator[Item]:
        if 40 in chunk and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().pictures(chunk)


def doubled(number: int) -> int:
    return 2 * number


def refuse(number: int) -> int:
    raise UserError(f"{number} is not wanted")


def always_killed(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def padded(size: int, number: int) -> bytes:
    return number.to_bytes(8, "big") * (size // 8)


def test_an_engine_is_known_by_its_name() -> None:
    assert engine_named("local", workers=2) == LocalEngine(2)
    with pytest.raises(UserError, match=r"engine=dask is not one of local, ray"):
        engine_named("dask")
    with pytest.raises(UserError, match=r"no ray\.adress; there is ray\.address"):
        engine_named("ray", ray={"adress": "a:1"})
    with pytest.raises(UserError, match=r"ray\.address=a:1 is for engine=ray"):
        engine_named("local", ray={"address": "a:1"})


def test_without_ray_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'"):
        engine_named("ray")


def test_a_machine_without_the_folder_of_pictures_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "red.png")
    monkeypatch.chdir(tmp_path)
    source = ImageFolder("pictures")
    (chunk,) = source.chunks()
    there = pickle.loads(pickle.dumps(source))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # where a worker of Ray runs
    assert [type(item) for item in there.pictures(chunk)] == [Picture]
    (tmp_path / "pictures").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"this machine has no folder /.*/pictures\. .*engine=local"):
        list(there.pictures(chunk))


@needs_ray
def test_an_address_that_does_not_answer_is_said_at_once(run_here) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    asked = ("source=painter", "source.count=100", "engine=ray", "out=shards", "progress=false")
    status, _, complaint = run_here("prepare", *asked, f"ray.address=127.0.0.1:{port}")
    assert (status, f"no Ray answers at ray.address=127.0.0.1:{port}" in complaint) == (1, True)
    assert "ray start --head" in complaint
    status, _, complaint = run_here("prepare", *asked, "ray.address=ray://somewhere")
    assert (status, "give HOST:PORT" in complaint) == (1, True)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A Ray of two cores for the tests of this file, which an engine uses as it finds it."""
    pytest.importorskip("ray")
    with RayEngine(workers=2).connected():
        yield


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.usefixtures("ray")
def test_results_on_ray_are_those_of_a_loop() -> None:
    numbers = range(200)
    drawn = iter(numbers)
    with closing(engine_named("ray").map(doubled, drawn)) as results:
        assert list(itertools.islice(results, 20)) == [2 * number for number in range(20)]
        assert next(drawn) <= 20 + 2 * 4  # only a little ahead
    results = engine_named("ray").map(refuse, numbers)
    with pytest.raises(UserError, match="0 is not wanted"):
        next(results)


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_shards_are_the_same_to_the_byte_with_a_worker_killed_on_the_way(tmp_path: Path) -> None:
    source = Deadly(400, mark=tmp_path / "killed")
    build_shards(source, tmp_path / "on_ray", **SMALL, engine="ray")
    assert (tmp_path / "killed").exists()
    build_shards(source, tmp_path / "local", **SMALL, workers=1)
    assert contents(tmp_path / "on_ray") == contents(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.usefixtures("ray")
def test_work_that_kills_every_worker_is_given_up_with_a_sentence() -> None:
    with pytest.raises(
        WorkerDiedError, match=r"gave a piece of work up.*workers=1 \(data\.build\.workers of a training\)"
    ):
        list(engine_named("ray").map(always_killed, [1]))


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.usefixtures("ray")
def test_memory_does_not_grow_with_the_pieces() -> None:
    """A million rows of 100 bytes in pieces of 1,000: 100 MB have passed, and are not held."""
    process, seen = psutil.Process(), []
    with closing(engine_named("ray").map(partial(padded, 100_000), range(1000))) as results:
        for number, result in enumerate(results):
            assert result[:8] == number.to_bytes(8, "big")
            if number in (200, 999):
                seen.append(process.memory_info().rss)
    assert seen[1] - seen[0] < 30e6


@pytest.mark.slow
@pytest.mark.longest
@needs_ray
def test_prepare_starts_a_ray_and_leaves_none(tmp_path: Path, run_command) -> None:
    words = ("source=painter", "source.count=300", "image_size_px=16", "progress=false", "workers=2")
    before = {process.pid for process in psutil.process_iter() if process.name() == "gcs_server"}
    one = run_command("prepare", *words, "engine=ray", "out=on_ray", cwd=tmp_path)
    assert (one.returncode, one.stderr) == (0, "")
    assert "on_ray is ready: 300 pictures" in one.stdout
    run_command("prepare", *words, "out=local", cwd=tmp_path)
    assert contents(tmp_path / "on_ray") == contents(tmp_path / "local")
    assert {process.pid for process in psutil.process_iter() if process.name() == "gcs_server"} <= before
