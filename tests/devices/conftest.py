from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.devices.fake_gpu import FakeGpu
from tests.devices.runs import Runs


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    """A CUDA device that computes nothing."""
    with FakeGpu() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))
