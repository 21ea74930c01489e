"""Features of tests are kept apart from the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.files import CACHE_VARIABLE


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
