"""A real browser in front of a real server of a tiny model; without a browser these tests are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusion_art.serving.settings import Limits, Settings
from tests.browser import launched, visits
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, write_checkpoint
from tests.serving.running import Running, serving

PROMPTS = [
    "Claude Monet / Harbour in Blue and Turquoise, Low Horizon / Impressionism / seascape / 1896",
    "Yves Tanguy / Constellation in Orange and Blue, Left / Surrealism / abstract / 1929",
]
LONG = 5000  # steps: many seconds of the tiny model, for what is stopped


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="package")
def run_folder(painter_shards, tmp_path_factory) -> Path:
    """A run of a 16 px model, trained (as its config says) on the painter's shards."""
    config = {
        "model": MODEL_CONFIG,
        "sampler": SAMPLER_CONFIG | {"num_steps": 8},
        "guidance_scale": 2.0,
        "prompts": PROMPTS,
        "data": {"path": str(painter_shards)},
    }
    folder = tmp_path_factory.mktemp("gallery") / "gallery"
    write_checkpoint(folder / "checkpoints" / "last.ckpt", toy_model(), step=1400, config=config)
    return folder


@pytest.fixture(scope="package")
def patient() -> Settings:
    """Limits that let a picture take long."""
    return Settings(limits=Limits(max_steps=LONG))


@pytest.fixture(scope="package")
def gallery(run_folder, patient) -> Iterator[Running]:
    with serving(run_folder, settings=patient) as running:
        yield running


@pytest.fixture
def visit(browser, gallery) -> Iterator[Callable[..., Any]]:
    """`visit()` opens the page of `gallery`, `visit(url, ...)` another one (`tests.browser.visits`)."""
    with visits(browser, gallery.url, ready="#pulse[data-state=up]") as visit:
        yield visit
