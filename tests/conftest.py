"""Small real things that many tests share."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings

from diffusion_art.shards.build.build import build_shards
from diffusion_art.sources.painter import Painter
from tests.commands import COMMON, Command
from tests.shards.toy import write_toy

ROOT = Path(__file__).parents[1]

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of whole commands first: they take longest, and the last file of a suite has one process to itself."""
    items.sort(key=lambda item: item.path.parent not in (ROOT / "tests", ROOT / "tests" / "sweeps"))


@pytest.fixture(scope="session")
def painter_shards(tmp_path_factory) -> Path:
    """150 paintings of 16 px as shards: about 120 to train on."""
    out = tmp_path_factory.mktemp("data") / "painter-16px"
    painter = Painter(count=150, image_size_px=16)
    build_shards(painter, out, image_size_px=16, val_fraction=0.2, progress=False, workers=1)
    return out


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 training and 10 validation samples in five shards."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder)
    return folder


@pytest.fixture
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_command("train", "seed=1", cwd=...)` runs the real command and returns what it said."""

    def run(name: str, *arguments: str, cwd: Path = ROOT, timeout: float = 300, env: dict | None = None):
        line = [sys.executable, "-m", f"diffusion_art.{name}", *arguments]
        environment = {**os.environ, **COMMON, **(env or {}), "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        with Command(line, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                said, complaints = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(line, process.returncode, said, complaints)

    return run


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """What a command sets up in this process for its log, which writes to the streams of one test, ends with it."""
    root, level, handlers = logging.getLogger(), logging.getLogger().level, list(logging.getLogger().handlers)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture
def logging_as_before(capfd) -> Iterator[None]:
    """For tests that call a command by themselves."""
    with _logging_as_before():
        yield


@pytest.fixture
def run_here(monkeypatch, capfd, tmp_path):
    """`run_here("train", "seed=1")` runs a command's entry point in this process, in `tmp_path`: quicker, and checked
    by the type checker. Returns (exit status, what it printed, its complaints).
    """

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        module = importlib.import_module(f"diffusion_art.{name}")
        if hasattr(module, "__path__"):  # a package with a command
            module = importlib.import_module(f"diffusion_art.{name}.__main__")
        monkeypatch.setattr(sys, "argv", [f"diffusion_art.{name}", *arguments])
        monkeypatch.chdir(tmp_path)
        status = 0
        try:
            with _logging_as_before():
                module.main()
        except SystemExit as left:
            status = int(left.code or 0)
        finally:
            capture = capfd.readouterr()
        return status, capture.out, capture.err

    return run
