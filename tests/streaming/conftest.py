"""Shards and a server of theirs, shared by the tests that only read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusion_art.streaming.server.process import ServerProcess


@pytest.fixture(scope="session")
def server(toy: Path) -> Iterator[ServerProcess]:
    with ServerProcess(toy) as process:
        yield process


@pytest.fixture(scope="session")
def painter_server(painter_shards: Path) -> Iterator[ServerProcess]:
    """A server of pictures that can be decoded."""
    with ServerProcess(painter_shards) as process:
        yield process
