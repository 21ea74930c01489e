"""How the page looks: sharp pictures, readable words, small screens, light and dark; and its portrait for the README.

    UPDATE_PAGE_PNG=logs/quickstart python -m pytest tests/serving/page/test_looks.py -k portrait

paints docs/page.png anew with the model of that run.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.fakes import MODEL_CONFIG, SAMPLER_CONFIG, toy_model, write_checkpoint
from tests.serving.page.test_painting import DONE, PAINTED, paint
from tests.serving.running import serving

pytestmark = pytest.mark.slow  # a real browser, or many real runs

expect = pytest.importorskip("playwright.sync_api").expect

PORTRAYED = [  # caption, seed: the first hangs last
    ("Andre Derain / Fruit Bowl in Violet and Green, Left / Fauvism / still life / 1911", 4),
    ("Katsushika Hokusai / Moon in Brown and Blue, Right / Ukiyo-e / landscape / 1858", 4),
    ("Claude Monet / Sunrise in Orange and Blue, Low Horizon / Impressionism / seascape / 1872", 1),
    ("Olga Rozanova / Circle in Green and Brown, Falling / Suprematism / abstract / 1914", 1),
    ("Sonia Delaunay / Rhythm in Violet and Turquoise, Centre / Orphism / abstract / 1935", 5),
    ("Bart van der Leck / Composition in Green and Blue, Few Planes / De Stijl / abstract / 1931", 2),
]


@pytest.mark.parametrize(
    "scale", [1, pytest.param(1.5, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_each_pixel_of_a_picture_covers_whole_pixels_of_the_screen(visit, scale):
    page = visit(viewport={"width": 1280, "height": 800}, device_scale_factor=scale)
    page.check("#compare")
    paint(page, seed=1, steps_a=2, steps_b=1)
    page.uncheck("#compare")
    paint(page, seed=1)
    expect(page.locator(DONE)).to_have_count(2)
    expect(page.locator(PAINTED)).to_have_count(3)
    expect(page.locator(PAINTED).first).to_have_css("image-rendering", "pixelated")
    for width in (2200, 1280, 820, 390, 320) if scale == 1 else (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        page.locator(".work .picture").last.click()
        page.locator("#stage img").nth(1).wait_for()
        page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        factors = page.locator(f"{PAINTED}, #stage img").evaluate_all(
            "(all) => all.map((one) => one.getBoundingClientRect().width * devicePixelRatio / one.naturalWidth)"
        )
        assert len(factors) == 5
        assert all(factor >= 2 and abs(factor - round(factor)) < 0.02 for factor in factors), (width, factors)
        across = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('#wall').scrollWidth]")
        assert max(across) <= width, "there is something to scroll sideways to"
        page.keyboard.press("Escape")


def test_on_a_phone_the_wall_begins_on_the_first_screen_and_the_viewer_can_always_be_closed(visit):
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    expect(page.locator(".idea")).not_to_have_count(0)
    assert page.locator(".idea .frame").first.bounding_box()["y"] < 600
    page.locator(".idea").first.tap()
    expect(page.locator(DONE)).to_have_count(1)
    page.locator(".work .picture").tap()
    expect(page.locator("#close")).to_be_in_viewport()
    expect(page.locator("#stage img")).to_be_in_viewport()
    page.locator("#viewer [data-deed=remove]").scroll_into_view_if_needed()
    page.locator("#close").tap()
    expect(page.locator("#viewer")).to_be_hidden()


@pytest.mark.parametrize("size", ["8x24", "24x8"])
def test_closely_looked_at_a_picture_of_any_shape_is_whole_and_as_large_as_may_be(visit, tmp_path, size):
    sizes = ["8x24", "16x16", "24x8"]
    config = {"model": MODEL_CONFIG | {"sizes": sizes}, "sampler": SAMPLER_CONFIG, "guidance_scale": 2.0}
    config["prompts"] = ["red"]
    write_checkpoint(tmp_path / "shapes/checkpoints/last.ckpt", toy_model(sizes=sizes), config=config)
    with serving(tmp_path / "shapes") as running:
        page = visit(running.url, viewport={"width": 1280, "height": 640})
        page.locator("#size").select_option(size)
        paint(page, "red", steps_a=1)
        expect(page.locator(DONE)).to_have_count(1)
        page.locator(".work .picture").click()
        page.wait_for_function("document.querySelector('#stage img').style.width !== ''")
        stage, frame = (page.locator(part).bounding_box() for part in ("#stage", "#stage .frame"))
    for start, length in (("x", "width"), ("y", "height")):
        assert stage[start] <= frame[start]
        assert frame[start] + frame[length] <= stage[start] + stage[length]
    long = "height" if size == "8x24" else "width"
    assert frame[long] > 0.8 * stage[long]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(visit, scheme):
    """Contrast of 4.5 and more, as WCAG 2.2's level AA asks (success criterion 1.4.3)."""
    page = visit(color_scheme=scheme)
    page.click("#paint")
    paint(page)
    expect(page.locator(DONE)).to_have_count(1)
    page.mouse.move(0, 0)
    page.click("#paint", position={"x": 2, "y": 2})
    pairs = page.evaluate(
        """() => [...document.querySelectorAll("h1, h2, label, summary, button, .label p, .model, .keys, #tally, kbd")]
          .filter((one) => one.checkVisibility() && !one.disabled && one.textContent.trim())
          .map((one) => {
            let behind = one;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
            return [one.textContent.trim(), getComputedStyle(one).color, getComputedStyle(behind).backgroundColor];
          })"""
    )
    assert len(pairs) > 20
    weak = [(words, round(contrast(ink, paper), 2)) for words, ink, paper in pairs if contrast(ink, paper) < 4.5]
    assert weak == []
    wall = luminance(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert (wall > 0.7) if scheme == "light" else (wall < 0.05)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of a CSS `rgb(...)`, as WCAG 2.2 defines it."""
    channels = np.array([float(part) for part in colour[4:-1].split(",")]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_light_or_dark_can_be_chosen_and_stays(visit):
    page = visit(color_scheme="light")

    def wall() -> float:
        return luminance(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    switch = page.locator("#theme")
    expect(switch).to_have_attribute("aria-label", "Light or dark: as the system")
    switch.click()
    switch.click()
    expect(switch).to_have_attribute("aria-label", "Light or dark: dark")
    assert wall() < 0.05
    page.reload()
    expect(switch).to_have_attribute("aria-label", "Light or dark: dark")
    assert wall() < 0.05
    switch.click()
    assert wall() > 0.7


def test_everything_that_can_be_pressed_or_filled_has_a_name(visit):
    page = visit()
    page.check("#compare")
    paint(page, steps_a=2)
    expect(page.locator(DONE)).to_have_count(1)
    page.locator(".work .picture").first.click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, a, summary, [role=progressbar]")]
          .filter((one) => one.getAttribute("aria-hidden") !== "true")
          .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim()
            || one.querySelector("img[alt]:not([alt=''])")))
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_the_page_weighs_little(visit):
    page = visit()
    loaded = page.evaluate(
        """performance.getEntriesByType("resource").filter((one) => one.name.includes("/page/"))
          .map((one) => one.decodedBodySize)"""
    )
    assert len(loaded) > 5
    assert sum(loaded) < 80_000, "bytes, all scripts and styles together, as they are written"


@pytest.mark.slow
def test_its_portrait(visit, gallery, tmp_path):
    """The README's picture of it. Without UPDATE_PAGE_PNG it is made of the tiny model and thrown away."""
    run = os.environ.get("UPDATE_PAGE_PNG")
    out = ROOT / "docs" / "page.png" if run else tmp_path / "page.png"
    with serving(Path(run)) if run else nullcontext(gallery) as running:
        page = visit(running.url, viewport={"width": 1440, "height": 1060}, color_scheme="light")
        for caption, seed in PORTRAYED:
            paint(page, caption, seed=seed)
        expect(page.locator(DONE)).to_have_count(len(PORTRAYED))
        page.locator(PAINTED).nth(len(PORTRAYED) - 1).wait_for()
        page.mouse.move(700, 1)
        page.evaluate("document.activeElement.blur()")
        page.wait_for_timeout(600)  # until the last picture has come up and the last line has gone
        page.screenshot(path=out)
    pixels = np.asarray(Image.open(out).convert("RGB"))
    assert pixels.shape == (1060, 1440, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500
