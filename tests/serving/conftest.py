"""One server of a tiny model for the tests that only ask it something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.fakes import toy_run
from tests.serving.running import Running, serving


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory) -> Path:
    """A run folder with a 16 px model; its prompts are `red` and `blue`, its sampler Euler in three steps."""
    return toy_run(tmp_path_factory.mktemp("serving") / "logs" / "toy")


@pytest.fixture(scope="session")
def server(toy_folder) -> Iterator[Running]:
    with serving(toy_folder) as running:
        yield running


@pytest.fixture(scope="session")
def client(server) -> Iterator[httpx2.Client]:
    """An HTTP client of `server`."""
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client
