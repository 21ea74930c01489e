"""What a visitor does: write, compose, paint, watch, compare, keep."""

from __future__ import annotations

import base64
import io
import json

import httpx2
import pytest
from PIL import Image

from diffusion_art.serving.settings import Limits, Settings
from tests.serving.page.conftest import PROMPTS
from tests.serving.running import serving

expect = pytest.importorskip("playwright.sync_api").expect
DONE, PAINTED = ".work[data-state=done]", ".picture[data-look=final] img:only-child"  # the look before it has faded


def paint(page, caption: str = PROMPTS[0], **settings: int | float | str) -> None:
    page.fill("#caption", caption)
    for name, value in settings.items():
        page.fill(f"#{name.replace('_', '-')}", str(value))
    page.click("#paint")


def png(source: str) -> bytes:
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data)


@pytest.mark.slow
def test_an_empty_caption_is_pointed_to_and_nothing_is_asked(visit):
    page = visit()
    asked = []
    page.on("request", lambda request: asked.append(request.method))
    page.click("#paint")
    expect(page.locator("#fault")).to_contain_text("Write a caption first")
    expect(page.locator("#caption")).to_be_focused()
    expect(page.locator("#caption")).to_have_attribute("aria-invalid", "true")
    page.type("#caption", "r")
    expect(page.locator("#fault")).to_be_empty()
    expect(page.locator(".work")).to_have_count(0)
    assert "POST" not in asked


def test_type_generate_see_it_change_and_download_what_the_api_paints(visit, gallery):
    page = visit()
    page.evaluate(
        """() => {
          window.seen = [];
          window.shares = [];
          new MutationObserver((changes) => {
            for (const { addedNodes, target } of changes) {
              for (const node of addedNodes) if (node.tagName === "IMG") window.seen.push(node.src);
              if (target.role === "progressbar") window.shares.push(Number(target.getAttribute("aria-valuenow")));
            }
          }).observe(document.querySelector("#works"), { subtree: true, childList: true, attributes: true });
        }"""
    )
    paint(page, seed=7, steps_a=120, guidance_a=1.5)
    expect(page.locator(DONE)).to_have_count(1)
    page.locator(PAINTED).wait_for()
    seen, shares = page.evaluate("[window.seen, window.shares]")
    assert len(set(seen)) >= 3, "two looks on the way at the least, and the picture"
    assert shares == sorted(shares)
    assert {0, 100} < set(shares), "it began at nothing, ended at all, and stood between"
    with page.expect_download() as downloading:
        page.click("[data-deed=download]")
    name, kept = downloading.value.suggested_filename, downloading.value.path().read_bytes()
    assert name == "claude-monet-harbour-in-blue-and-turquoise-low-horizon-impre_seed-7_steps-120.png"
    asked = {"prompt": PROMPTS[0], "seed": 7, "num_inference_steps": 120, "guidance_scale": 1.5}
    answer = httpx2.post(f"{gallery.url}/v1/images/generations", json=asked, timeout=60, trust_env=False).json()
    ours, theirs = Image.open(io.BytesIO(kept)), Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    assert ours.size == (16, 16)
    assert ours.tobytes() == theirs.tobytes()
    assert png(seen[-1]) == kept


@pytest.mark.slow
def test_the_label_reads_like_a_museums_and_a_caption_is_only_ever_text(visit):
    page = visit()
    paint(page, PROMPTS[0], seed=3, steps_a=4)
    label = page.locator(".work .label")
    assert label.locator(".artist").inner_text() == "Claude Monet"
    assert label.locator(".title").inner_text() == "Harbour in Blue and Turquoise, Low Horizon, 1896"
    assert label.locator(".manner").inner_text() == "Impressionism, seascape"
    assert label.locator(".recipe").inner_text() == "seed 3, 4 steps, guidance 2, euler"
    evil = "<img src=x onerror=document.title='got'> & <b>bold</b>"
    paint(page, evil)
    expect(page.locator(DONE)).to_have_count(2)
    assert page.locator(".work .title").first.inner_text() == evil
    assert page.locator(".work .label img, .work .label b").count() == 0
    assert page.title() == "diffusion_art"


@pytest.mark.slow
def test_a_caption_is_composed_from_parts_that_the_training_set_suggests(visit):
    page = visit()
    page.locator("#artists option").first.wait_for(state="attached")
    offered = {
        name: page.eval_on_selector_all(f"#{name} option", "all => all.map(one => one.value)")
        for name in ("artists", "titles", "styles", "genres", "dates")
    }
    assert all(offered.values())
    assert "Impressionism" in offered["styles"]
    assert all(1800 < int(year) < 2030 for year in offered["dates"])
    page.fill("#artist", "Claude Monet")
    page.fill("#style", "Impressionism")
    expect(page.locator("#caption")).to_have_value("Claude Monet / Impressionism")
    page.fill("#caption", PROMPTS[1])
    expect(page.locator("#artist")).to_have_value("Yves Tanguy")
    expect(page.locator("#date")).to_have_value("1929")
    page.fill("#title", "Window")
    expect(page.locator("#caption")).to_have_value("Yves Tanguy / Window / Surrealism / abstract / 1929")
    page.fill("#caption", "a red boat")
    page.fill("#artist", "Claude Monet")
    expect(page.locator("#caption")).to_have_value("Claude Monet / a red boat")
    page.fill("#caption", "")
    expect(page.locator("#title")).to_be_empty()


@pytest.mark.slow
def test_an_empty_wall_invites_and_a_surprise_is_one_of_its_prompts(visit):
    page = visit()
    expect(page.locator(".idea")).to_have_count(len(PROMPTS))
    page.locator(".idea").nth(1).click()
    expect(page.locator("#caption")).to_have_value(PROMPTS[1])
    expect(page.locator(DONE)).to_have_count(1)
    expect(page.locator("#empty")).to_be_hidden()
    page.click("#surprise")
    expect(page.locator(DONE)).to_have_count(2)
    assert page.input_value("#caption") in PROMPTS


@pytest.mark.slow
def test_two_settings_side_by_side_from_one_seed(visit):
    page = visit()
    page.check("#compare")
    assert page.input_value("#steps-b") == "2", "a quarter of A's, to begin with"
    paint(page, seed=11, count=2, steps_a=6, steps_b=2, guidance_b=1)
    expect(page.locator(f"{DONE}.pair")).to_have_count(2)
    work = page.locator(".work").first
    assert work.locator(".version").all_inner_texts() == ["A 6 steps, guidance 2", "B 2 steps, guidance 1"]
    work.locator(PAINTED).nth(1).wait_for()
    first, second = work.locator(PAINTED).evaluate_all("all => all.map(one => one.src)")
    assert png(first) != png(second)
    work.locator(".picture").first.click()
    assert page.locator("#viewer .stage img").count() == 2
    rows = page.locator("#facts tr").evaluate_all("all => all.map(row => [row.className, row.innerText])")
    assert ["", "Seed\t11\t11"] in rows
    assert ["differs", "Steps\t6\t2"] in rows
    assert ["differs", "Guidance\t2\t1"] in rows


@pytest.mark.slow
def test_vary_reuse_and_remove(visit):
    page = visit()
    paint(page, seed=5, steps_a=3)
    expect(page.locator(DONE)).to_have_count(1)
    page.fill("#seed", "")
    page.click("[data-deed=vary]")
    expect(page.locator(DONE)).to_have_count(2)
    newest, oldest = page.locator(".recipe").all_inner_texts()
    assert oldest.startswith("seed 5, 3 steps")
    assert newest.split(", ")[1:] == oldest.split(", ")[1:]
    assert newest.split(", ")[0] != "seed 5"
    page.fill("#caption", "something else")
    page.fill("#steps-a", "8")
    page.locator("[data-deed=reuse]").nth(1).click()
    found = [page.input_value(f"#{name}") for name in ("caption", "seed", "steps-a", "guidance-a")]
    assert found == [PROMPTS[0], "5", "3", "2"]
    page.locator("[data-deed=remove]").first.click()
    assert page.locator(".recipe").all_inner_texts() == [oldest]
    page.click("#clear")
    expect(page.locator("#empty")).to_be_visible()


@pytest.mark.slow
def test_closely_looked_at_a_work_shows_how_it_came_about(visit, tmp_path, monkeypatch, gallery):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    paint(page, seed=9, steps_a=10, negative="a, 1: 'quoted' \"text\"")
    expect(page.locator(DONE)).to_have_count(1)
    page.locator(".work .picture").click()
    stage, film = page.locator("#stage img"), page.locator("#film .picture")
    final = stage.get_attribute("src")
    expect(film).to_have_count(4)
    film.first.click()
    assert stage.get_attribute("src") == film.first.locator("img").get_attribute("src") != final
    expect(film.first).to_have_attribute("aria-pressed", "true")
    with page.expect_download() as downloading:
        page.click("#viewer [data-deed=enlarge]")
    assert downloading.value.suggested_filename.endswith("_seed-9_steps-10_large.png")
    large = Image.open(downloading.value.path()).convert("RGB")
    small = Image.open(io.BytesIO(png(final))).convert("RGB")
    assert large.size == (1024, 1024)
    assert large.tobytes() == small.resize((1024, 1024), Image.Resampling.NEAREST).tobytes()

    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    body = json.loads(command.split("-d '")[1].split("' | jq")[0].replace("'\\''", "'"))
    assert body["negative_prompt"] == "a, 1: 'quoted' \"text\""
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.get_by_role("button", name="Copied")).to_have_count(2)
    script = page.evaluate("navigator.clipboard.readText()")
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "copied.py", "exec"), {})
    assert Image.open("picture.png").convert("RGB").tobytes() == small.tobytes()


@pytest.mark.slow
def test_after_the_largest_seed_comes_the_first(visit):
    page = visit()
    paint(page, seed=2**32 - 1, count=2, steps_a=1)
    expect(page.locator(DONE)).to_have_count(2)
    seeds = [text.split(",")[0] for text in page.locator(".recipe").all_inner_texts()]
    assert seeds == ["seed 4294967295", "seed 0"]


@pytest.mark.slow
def test_as_many_pictures_as_the_server_allows(visit, run_folder):
    with serving(run_folder, settings=Settings(limits=Limits(max_n=12))) as large:
        page = visit(large.url)
        expect(page.locator("[data-for=count]")).to_have_attribute("max", "12")
        paint(page, seed=1, count=12, steps_a=1)
        expect(page.locator(DONE)).to_have_count(12)
