"""A local S3 and a plain web server, both with the toy shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffusion_art.shards.places import Address, RemoteSettings
from tests.shards.remote.s3 import S3
from tests.shards.remote.web import Web


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.close()


@pytest.fixture
def bucket(s3: S3, toy: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the toy shards in S3, whose credentials are in the environment."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.upload(toy, "toys/set")


@pytest.fixture
def web(toy: Path) -> Iterator[Web]:
    server = Web(toy)
    yield server
    server.close()


@pytest.fixture
def at(tmp_path: Path) -> Callable[..., Address]:
    """`at(url, unit="range")` is that address, with a cache of this test's own."""

    def address(url: str, **settings) -> Address:
        given = {"cache": str(tmp_path / "cache"), "retry_for_s": 2.0, "timeout_s": 5.0} | settings
        return Address(url, RemoteSettings(**given))

    return address
