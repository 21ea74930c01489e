"""A real browser for the tests of our pages: Debian's `chromium` (or another of its family on the path), headless."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def launched() -> Iterator[Any]:
    """One browser for many tests; each gets a profile of its own in it. Skips where there is none."""
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


@contextmanager
def visits(browser: Any, home: str, *, ready: str) -> Iterator[Callable[..., Any]]:
    """`visit()` opens `home`, `visit(url, ...)` another page, with the browser context's options; it waits for `ready`.

    However a test ends, the page must have kept to its own server and to its Content-Security-Policy, and must not have
    thrown.
    """
    contexts, faults = [], []

    def opened(url: str = home, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        context.set_default_timeout(60_000)
        context.on("request", lambda asked: asked.url.startswith((url, "data:", "blob:")) or faults.append(asked.url))
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: _is_fault(said) and faults.append(said.text))
        page.goto(url)
        page.locator(ready).first.wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def _is_fault(said: Any) -> bool:
    """Errors, save the browser's own note of an answer that was no success: tests provoke those."""
    return said.type in ("error", "warning") and not said.text.startswith("Failed to load resource")
