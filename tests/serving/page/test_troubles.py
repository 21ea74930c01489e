"""What goes wrong between a page and its server: it goes away, is busy, wants a token, says no."""

from __future__ import annotations

import pytest

from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.serving.engine.jobs import Job
from diffusion_art.serving.settings import Settings
from tests.serving.page.test_painting import DONE, PAINTED, paint
from tests.serving.running import serving

pytestmark = pytest.mark.slow  # a real browser, or many real runs

expect = pytest.importorskip("playwright.sync_api").expect


def test_a_server_that_goes_and_comes_back_finishes_what_was_begun(visit, run_folder, patient):
    with serving(run_folder, settings=patient) as first:
        page = visit(first.url)
        paint(page, "red", seed=4, steps_a=8)
        expect(page.locator(DONE)).to_have_count(1)
        paint(page, "blue", seed=4, steps_a=100, count=2)
        page.locator(".picture[data-look='1']").nth(1).wait_for()
    expect(page.locator("#banner")).to_contain_text("The server has been away")
    expect(page.locator("#pulse")).to_have_attribute("data-state", "away")
    expect(page.locator(".work[data-state=waiting]")).to_have_count(2)
    expect(page.locator(".note").first).to_have_text("Waiting for the server")
    expect(page.locator(f"{DONE} {PAINTED}")).to_have_count(1)
    paint(page, "green", seed=5, steps_a=3, count=1)
    expect(page.locator(".work[data-state=waiting]")).to_have_count(3)
    with serving(run_folder, settings=patient, port=first.port):
        expect(page.locator("#banner")).to_be_hidden()
        expect(page.locator(DONE)).to_have_count(4)
        assert page.locator(".work .title").all_inner_texts() == ["green", "blue", "blue", "red"]
        expect(page.locator("#pulse")).to_have_attribute("data-state", "up")


@pytest.mark.slow
def test_a_full_queue_is_waited_for(visit, run_folder, patient):
    with serving(run_folder, settings=patient, max_jobs=1) as running:
        page = visit(running.url)
        running.engine.submit([Job("other", 0, Euler(100))])
        paint(page, seed=1, steps_a=3)
        expect(page.locator(".note")).to_have_text("The server is busy; it will be asked again")
        expect(page.locator(".work")).to_have_attribute("data-state", "waiting")
        expect(page.locator(DONE)).to_have_count(1)
        expect(page.locator(".note")).to_be_empty()


def test_a_server_with_a_token_is_asked_with_it(visit, run_folder):
    token = "correct-horse-battery-staple"
    with serving(run_folder, settings=Settings(tokens=(token,))) as running:
        page = visit(running.url)
        expect(page.locator("#lock")).to_be_visible()
        paint(page)
        expect(page.locator(".note")).to_have_text("Waiting for a token")
        page.fill("#token", "wrong…")  # no character for a header
        page.press("#token", "Enter")
        expect(page.locator("#lock")).to_be_visible()
        expect(page.locator("#model")).to_have_text("This token is not known here.")
        page.fill("#token", f"\u200b{token}\u2028")  # as pages give it to be copied
        page.click("#unlock")
        expect(page.locator(DONE)).to_have_count(1)
        expect(page.locator("#lock")).to_be_hidden()
        expect(page.locator("#model")).to_contain_text("16 px")


def test_a_browser_whose_storage_is_closed_is_served_too(visit, run_folder):
    token = "correct-horse-battery-staple"
    with serving(run_folder, settings=Settings(tokens=(token,))) as running:
        page = visit(running.url)
        closed = "{ get() { throw new DOMException('closed', 'SecurityError'); } }"
        page.add_init_script(f"Object.defineProperty(window, 'sessionStorage', {closed})")
        page.reload()
        expect(page.locator("#lock")).to_be_visible()
        page.fill("#token", token)
        page.click("#unlock")
        expect(page.locator("#model")).to_contain_text("16 px")
        paint(page)
        expect(page.locator(DONE)).to_have_count(1)


def test_what_the_server_refuses_is_said_in_its_words(visit):
    page = visit()
    page.evaluate("document.querySelector('#caption').removeAttribute('maxlength')")
    paint(page, "x" * 5000)
    expect(page.locator(".work")).to_have_attribute("data-state", "failed")
    expect(page.locator("#fault")).to_contain_text("5,000 characters")
    expect(page.locator(".note")).to_contain_text("5,000 characters")
    expect(page.locator("[data-deed=again]")).to_be_visible()


@pytest.mark.slow
def test_a_step_that_raises_fails_its_work_alone(visit, run_folder):
    with serving(run_folder) as running:
        page = visit(running.url)
        paint(page, seed=1, steps_a=3)
        expect(page.locator(DONE)).to_have_count(1)
        encoder = running.studio.run.model.text_encoder
        whole, broken = encoder.forward, RuntimeError("the encoder broke")

        def breaks(*_):
            raise broken

        encoder.forward = breaks
        paint(page, "never seen before", seed=1, steps_a=3)
        expect(page.locator(".work[data-state=failed] .note")).not_to_be_empty()
        encoder.forward = whole
        page.click("[data-deed=again]")
        expect(page.locator(DONE)).to_have_count(2)


def test_the_stream_is_read_however_it_is_cut(visit):
    page = visit()
    text = (
        ': still painting\r\n\r\nevent: a\r\ndata: {"x": "é"}\r\n\r\ndata:one\ndata: two\n\nid: 3\rdata: last\r\r:end\n'
    )
    read = """async ([text, size]) => {
          const { events } = await import("./page/api.js");
          const bytes = new TextEncoder().encode(text);
          const stream = new ReadableStream({
            start(controller) {
              for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
              controller.close();
            },
          });
          const all = [];
          for await (const data of events(stream)) all.push(data);
          return all;
        }"""
    for size in (1, 2, 3, 7, 1000):
        assert page.evaluate(read, [text, size]) == ['{"x": "é"}', "one\ntwo", "last"]
