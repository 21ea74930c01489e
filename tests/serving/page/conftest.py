"""A real browser in front of a real server of a tiny model.

The browser is Debian's `chromium` (or another of its family that is on the path), headless; without one these tests
are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusion_art.serving.limits import Limits
from diffusion_art.serving.settings import Settings
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, write_checkpoint
from tests.serving.running import Running, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROMPTS = [
    "Claude Monet / Harbour in Blue and Turquoise, Low Horizon / Impressionism / seascape / 1896",
    "Yves Tanguy / Constellation in Orange and Blue, Left / Surrealism / abstract / 1929",
]
LONG = 5000  # steps: many seconds of the tiny model, for what is stopped


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """One browser for all; every test gets a profile of its own in it."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="the browser is driven by playwright: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("no chromium here to open the page with; apt-get install chromium")
    api.expect.set_options(timeout=60_000)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


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
    """`visit()` opens the page of `gallery`, `visit(url, ...)` another one, with the browser context's options.

    However a test ends, the page must have kept to its own server and to its Content-Security-Policy, and must not have
    thrown.
    """
    contexts, faults = [], []

    def opened(url: str = gallery.url, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        context.set_default_timeout(60_000)
        context.on("request", lambda asked: asked.url.startswith((url, "data:", "blob:")) or faults.append(asked.url))
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: _is_fault(said) and faults.append(said.text))
        page.goto(url)
        page.locator("#pulse[data-state=up]").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def _is_fault(said: Any) -> bool:
    """Errors, save the browser's own note of an answer that was no success: tests provoke those."""
    return said.type in ("error", "warning") and not said.text.startswith("Failed to load resource")
