"""A visit as a whole: by keyboard, broken off, reloaded."""

from __future__ import annotations

import pytest

from tests.serving.page.conftest import LONG, PROMPTS
from tests.serving.page.test_painting import DONE, PAINTED, paint

pytestmark = pytest.mark.slow  # a real browser, or many real runs

expect = pytest.importorskip("playwright.sync_api").expect


def test_by_keyboard_alone(visit):
    page = visit()
    page.keyboard.press("/")
    expect(page.locator("#caption")).to_be_focused()
    page.keyboard.type("red")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+a")
    page.keyboard.type("blue")
    page.keyboard.press("Control+Enter")
    expect(page.locator(DONE)).to_have_count(2)
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#clear")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".picture").first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".picture").nth(1)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer-title")).to_have_text("blue")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-title")).to_have_text("red")
    expect(page.locator("#place")).to_have_text("2 of 2")
    with page.expect_download():
        page.keyboard.press("d")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.locator(".picture").first).to_be_focused()


def test_escape_stops_and_frees_the_engine_and_what_was_stopped_can_be_begun_again(visit, gallery):
    page = visit()
    paint(page, seed=1, steps_a=LONG, count=2)
    page.locator(".picture[data-look='1']").nth(1).wait_for()
    page.keyboard.press("Escape")
    expect(page.locator(".work[data-state=stopped]")).to_have_count(2)
    expect(page.locator("#stop")).to_be_hidden()
    wait_until_idle(page, gallery)
    page.locator("[data-deed=again]").first.click()
    page.locator(".work[data-state=painting] .picture[data-look='1']").wait_for()
    page.click("[data-deed=stop]")
    expect(page.locator(".work[data-state=stopped]")).to_have_count(2)
    wait_until_idle(page, gallery)


def wait_until_idle(page, running) -> None:
    for _ in range(500):
        if running.engine.stats().jobs_running == 0:
            return
        page.wait_for_timeout(20)
    raise AssertionError("the engine paints on for nobody")


def test_a_reload_loses_neither_pictures_nor_form(visit):
    page = visit()
    paint(page, seed=2, count=2, steps_a=5)
    expect(page.locator(DONE)).to_have_count(2)
    page.locator(PAINTED).nth(1).wait_for()
    shown = page.locator(PAINTED).evaluate_all("all => all.map(one => one.src)")
    recipes = page.locator(".recipe").all_inner_texts()
    page.reload()
    expect(page.locator(DONE)).to_have_count(2)
    page.locator(PAINTED).nth(1).wait_for()
    assert page.locator(PAINTED).evaluate_all("all => all.map(one => one.src)") == shown
    assert page.locator(".recipe").all_inner_texts() == recipes
    assert [page.input_value(f"#{name}") for name in ("caption", "seed", "count", "steps-a")] == [
        PROMPTS[0],
        "2",
        "2",
        "5",
    ]
