"""Shards and a server of theirs, shared by the tests that only read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from diffusion_art.streaming.server import ServerProcess
from tests.streaming.toy import write_toy

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 training and 10 validation samples in five shards."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder)
    return folder


@pytest.fixture(scope="session")
def server(toy: Path) -> Iterator[ServerProcess]:
    with ServerProcess(toy) as process:
        yield process


@pytest.fixture(scope="session")
def painter_server(painter_shards: Path) -> Iterator[ServerProcess]:
    """A server of pictures that can be decoded."""
    with ServerProcess(painter_shards) as process:
        yield process
