"""A person opens the page, compares two runs, and sees a run go on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser import launched, visits
from tests.watching.conftest import watching
from tests.watching.test_app import FIRST, SECOND

expect = pytest.importorskip("playwright.sync_api").expect
CURVES, GRIDS = re.compile("/api/curves"), re.compile("/api/grid")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture
def visit(browser, logs) -> Iterator[Callable[..., Any]]:
    with watching(logs) as url, visits(browser, url, ready="#pulse[data-state=up]") as visit:
        yield visit


@pytest.mark.slow
def test_two_runs_are_compared_and_a_new_row_appears(visit, logs):
    page = visit(color_scheme="dark")
    expect(page.locator("#runs li")).to_have_count(2)
    expect(page.locator("#chosen li")).to_have_count(1)  # the one that wrote last
    for box in page.locator("#runs input").all():
        box.check()
    expect(page.locator("#chosen li")).to_have_count(2)
    charts = page.locator("#charts .chart")
    expect(charts).to_have_count(2)  # train/loss and val/loss
    expect(charts.first.locator("path:not(.faint, .band)")).to_have_count(2)
    grids = page.locator("#grids img")
    expect(grids).to_have_count(2)
    page.wait_for_function("[...document.querySelectorAll('#grids img')].every((one) => one.naturalWidth === 96)")
    page.locator("#place").fill("1")  # of the steps 0, 10 and 20
    expect(page.get_by_alt_text(f"samples of {FIRST} at step 0")).to_be_visible()
    expect(page.get_by_alt_text(f"samples of {SECOND} at step 10")).to_be_visible()
    expect(page.locator("#differences tr")).to_have_count(2)
    expect(page.locator("#differences tr").last).to_have_text("optim.lr0.50.1")  # as they were chosen
    with page.expect_popup() as opened:
        page.get_by_role("link", name=f"Report of {FIRST}").click()
    expect(opened.value.get_by_role("heading")).to_have_text("first")
    expect(opened.value).to_have_title("drawn")  # its script may run
    assert opened.value.evaluate("origin") == "null"  # of no server
    opened.value.close()
    expect(page.locator("#chosen li")).to_have_count(2)
    drawn = charts.first.locator("path").last.get_attribute("d")
    with (logs / FIRST / "metrics.csv").open("ab") as file:
        file.write(b"40,20.0,0.75,\r\n41,20.5,0.")
    expect(page.locator(f"#runs li[data-id='{FIRST}'] .loss")).to_contain_text("0.75")
    expect(page.locator(f"#runs li[data-id='{FIRST}'] .how")).to_contain_text("step 41")
    expect(charts.first.locator("path").last).not_to_have_attribute("d", drawn)  # curves come after the list


def test_what_is_looked_at_survives_a_reload_and_can_be_changed(visit):
    page = visit()
    for box in page.locator("#runs input").all():
        box.check()
    page.get_by_label("val/loss", exact=True).uncheck()
    expect(page.locator("#charts .chart")).to_have_count(1)
    page.get_by_label("train/loss", exact=True).click()  # the last: both are shown again
    expect(page.locator("#charts .chart")).to_have_count(2)
    expect(page.locator("#metrics input:checked")).to_have_count(2)
    page.get_by_label("val/loss", exact=True).uncheck()
    expect(page.locator("#charts .chart")).to_have_count(1)
    before = page.locator("#charts path").last.get_attribute("d")
    page.locator("#smooth").fill("0")
    assert page.locator("#charts path.faint").count() == 0
    assert page.locator("#charts path").last.get_attribute("d") != before
    page.locator("#across").select_option("time")
    expect(page.locator("#charts svg")).to_contain_text("time trained, seconds")
    page.reload()
    expect(page.locator("#chosen li")).to_have_count(2)
    expect(page.locator("#charts svg")).to_contain_text("time trained, seconds")
    assert page.locator("#smooth").input_value() == "0"
    page.get_by_label(f"Leave out {SECOND}").click()
    expect(page.locator("#charts path")).to_have_count(1)
    page.locator("#charts svg").hover()
    expect(page.locator(".tip")).to_contain_text(FIRST)
    page.locator("#filter").fill("sweep fin")
    expect(page.locator("#runs li")).to_have_count(1)
    # before a chart is drawn anew for a narrower page, neither it nor its tip sticks out
    narrowed = """(charts) => {
        charts.style.width = '200px';
        const wide = charts.scrollWidth;
        charts.style.width = '';
        return wide;
    }"""
    assert page.locator("#charts").evaluate(narrowed) <= 200
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")


@pytest.mark.slow
def test_an_answer_that_cannot_be_read_is_a_server_that_is_away_and_is_asked_for_again(visit):
    page = visit()
    page.route("**/api/runs", lambda route: route.fulfill(body="<p>a proxy", content_type="text/html"))
    expect(page.locator("#pulse")).to_have_attribute("data-state", "away")
    expect(page.locator("#banner")).to_contain_text("The server does not answer")
    page.unroute("**/api/runs")
    expect(page.locator("#pulse")).to_have_attribute("data-state", "up")
    expect(page.locator("#banner")).to_be_hidden()


@pytest.mark.slow
def test_an_answer_that_takes_longer_than_the_pause_between_looks_is_shown(visit):
    page = visit()
    lines = page.locator("#charts .chart").first.locator("path:not(.faint, .band)")
    second = page.locator(f"#runs li[data-id='{SECOND}'] input")
    for box in page.locator("#runs input").all():
        box.check()
    expect(lines).to_have_count(2)
    second.uncheck()
    expect(lines).to_have_count(1)

    def late(route: Any) -> None:
        time.sleep(3)
        route.continue_()

    page.route(CURVES, late)
    second.check()
    expect(lines).to_have_count(2)
    page.unroute(CURVES)


def test_a_grid_that_did_not_come_is_asked_for_again(visit):
    page = visit()
    picture = page.locator("#grids img")
    expect(picture).to_have_attribute("src", re.compile("^blob:"))
    before = picture.get_attribute("src")
    page.route(GRIDS, lambda route: route.abort())
    page.locator("#place").fill("0")
    expect(page.locator("#grids small")).to_have_text("not there any more")
    assert picture.get_attribute("src") == before
    page.unroute(GRIDS)
    page.locator("#log").check()  # draws all anew
    expect(page.locator("#grids small")).to_have_text("step 0")
    page.wait_for_function("(before) => document.querySelector('#grids img').src !== before", arg=before)
