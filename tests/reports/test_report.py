"""`report.html`: one file with two parts, no requests, bounded whatever the run's length."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from diffusion_art.reports.document import write_part
from diffusion_art.reports.grids import MOST, spread
from diffusion_art.reports.training import POINTS, TrainingReport


class Page(HTMLParser):
    """What a browser would find: text, pictures, addresses, and the data of the curves."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.pictures: list[dict[str, Any]] = []
        self.addresses: list[str] = []
        self.inside = ""
        self.curves: dict[str, Any] = {}
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.inside = "curves" if told.get("id") == "curves" else tag
        self.addresses += [str(told[name]) for name in ("src", "href", "action", "data") if name in told]
        if tag == "img":
            self.pictures.append(told)

    def handle_data(self, data: str) -> None:
        if self.inside == "curves":
            self.curves = json.loads(data)
        elif self.inside not in ("script", "style"):
            self.words.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


def assert_equals_metrics(page: Page, metrics: pd.DataFrame) -> None:
    """Each curve of a page holds the values of metrics.csv, to six digits."""
    lines = [line for chart in page.curves.values() for line in chart["lines"] if line["x"]]
    assert {"train/loss", "val/loss", "val/loss_clean", "train/lr", "time/data_wait_share"} <= {
        line["name"] for line in lines
    }
    for line in lines:
        logged = metrics[["step", line["name"]]].dropna()
        assert line["x"] == logged["step"].tolist(), line["name"]
        assert line["y"] == pytest.approx(logged[line["name"]].tolist(), rel=1e-5), line["name"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of many rows and grids."""
    rows = [f"{step},{1 / (1 + step)},{step % 7 / 7}" for step in range(5000)]
    (tmp_path / "metrics.csv").write_text("step,train/loss,train/lr\n" + "\n".join(rows) + "\n")
    (tmp_path / "samples").mkdir()
    for step in range(0, 5000, 100):
        Image.new("RGB", (300, 200), (step % 255, 90, 90)).save(tmp_path / "samples" / f"step_{step:08d}.png")
    return tmp_path


def write(report: TrainingReport, **more: Any) -> Page:
    told = {"command": "python -m diffusion_art.train 'prompts=[<b>]'", "about": [("minutes", "8.5")]}
    report.write("night / one", state="running at step 5,000", **(told | more))
    return Page(report.run / "report.html")


def test_a_long_run_s_page_is_bounded_and_asks_for_nothing(run):
    report = TrainingReport(run)
    page = write(report)
    assert all(len(line["x"]) <= POINTS + 1 for chart in page.curves.values() for line in chart["lines"])
    steps = [int(picture["data-step"]) for picture in page.pictures]
    assert 12 < len(steps) <= MOST
    assert (steps[0], steps[-1]) == (0, 4900)
    assert page.addresses
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert "prompts=[<b>]" in page.text
    assert "night / one" in page.text
    assert not re.search(r"url\(|@import|https?:(?!//www\.w3\.org)", (run / "report.html").read_text())


def test_grids_are_encoded_once_and_rows_are_read_once(run, monkeypatch):
    report = TrainingReport(run)
    write(report)
    encoded = []
    monkeypatch.setattr("diffusion_art.reports.grids.small", lambda path, **_: encoded.append(path.name) or b"x" * 9999)
    monkeypatch.setattr("diffusion_art.reports.curves.MetricsFile._read_head", None)  # an error, if it began anew
    Image.new("RGB", (30, 20)).save(run / "samples" / "step_00005000.png")
    with (run / "metrics.csv").open("a") as file:
        file.write("5000,0.5,0.25\n")
    page = write(report)
    assert encoded == ["step_00005000.png"]
    assert page.curves["loss"]["lines"][0]["y"][-1] == 0.5


def test_caption_following_is_told_where_it_was_measured(run):
    assert "Caption following" not in write(TrainingReport(run)).text
    told = {"style": 0.892, "style_count": 240, "held_out": 0.5, "held_out_count": 96, "rows": [], "step": 1250}
    (run / "caption_following.json").write_text(json.dumps(told))
    text = write(TrainingReport(run)).text
    assert "89.2% of 240 prompts" in text
    assert "50.0% of 96 prompts" in text


def test_training_and_evaluation_share_a_page_and_keep_each_other_s_part(run):
    path = run / "report.html"
    write_part(path, "evaluation", "<p>KID 0.5</p>", title="one")
    assert "KID 0.5" in write(TrainingReport(run)).text
    write_part(path, "evaluation", "<p>KID 0.25</p>", title="one")
    page = Page(path)
    assert page.curves
    assert "KID 0.25" in page.text
    assert "KID 0.5" not in page.text
    assert not list(run.glob("*.partial"))


def test_values_that_are_no_finite_numbers_are_shown(run):
    with (run / "metrics.csv").open("a") as file:
        file.write("5000,nan,inf\n")
    words = write(TrainingReport(run)).words
    assert words[words.index("train/loss") + 1] == "nan"
    assert words[words.index("learning rate") + 1] == "inf"


@pytest.mark.parametrize("count", [0, 1, 2, 24, 25, 47, 48, 49, 1000])
def test_spread_keeps_first_and_last_and_never_too_many(count):
    steps = list(range(0, 10 * count, 10))
    kept = spread(steps)
    assert len(kept) <= MOST
    assert kept == sorted(set(kept))
    if steps:
        assert (kept[0], kept[-1]) == (steps[0], steps[-1])
    if count > MOST:
        assert len(kept) > MOST // 2
        assert set(kept[:-1]) >= set(spread([*steps, 10 * count])[:-1]) - {steps[-1]}, "what a longer list shows"
