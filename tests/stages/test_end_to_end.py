"""From a folder in WikiArt's layout to a served model by one command, which goes on where it was stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fakes_sources import wikiart_folder

TRAIN = (
    "+debug=tiny data.num_workers=0 data.url=shards trainer.max_steps=4 trainer.val_check_interval=4 data.val_samples=2"
)
WORDS = (
    "training=openclipart",
    "source=wikiart",
    "source.path=collection",
    "measure.steps=4",
    f"train={TRAIN} callbacks.samples.every_n_steps=4 data.global_batch_size=4",
    "prepare=val_fraction=0.3 workers=1",
    "evaluate=metrics=[val_x0] val_pictures=2 pictures=4",
    "serve=port=0 compile=false",
)


def started(folder: Path, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    line = [sys.executable, "-m", "diffusion_art.end_to_end", *WORDS, *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        line, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
    )


@pytest.mark.slow
def test_a_collection_becomes_a_served_model_and_stages_that_are_done_are_skipped(tmp_path: Path):
    wikiart_folder(tmp_path / "collection", count=12)
    first = started(tmp_path, "until=statistics")
    said, complaints = first.communicate(timeout=300)
    assert first.returncode == 0, complaints
    estimate = said[: said.index("stage 1 of 6")]
    for part in ("openclipart", "4 steps of 4 pictures", "download", "train", "US$", "a second measured"):
        assert part in estimate
    assert "style of train: 1 different" in said
    assert "Impressionism" in said
    statistics = json.loads((tmp_path / "logs/end_to_end/openclipart/statistics.json").read_text())
    assert sum(statistics["splits"]["train"]["artist"]["counts"].values()) == statistics["samples"]["train"]

    second = started(tmp_path)
    assert second.stdout is not None
    heard = ""
    try:
        for line in second.stdout:
            heard += line
            if "stop with Ctrl-C" in line:
                break
        assert "built already" in heard
        assert heard.count("done before, by") == 3  # the measurement, shards, statistics
        assert (tmp_path / "logs/tiny/end_to_end/evaluation.json").is_file()
        url = re.search(r"http://127\.0\.0\.1:\d+", heard)
        assert url is not None, heard + second.communicate()[1]
        with urllib.request.urlopen(f"{url[0]}/v1/models") as answer:
            (model,) = json.load(answer)["data"]
        assert (model["id"], model["step"]) == ("model", 4)
        assert model["trained"].startswith("Trained for 4 steps, 16 pictures.")
    finally:
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=120)
    marks = {path.stem for path in (tmp_path / "logs/end_to_end/openclipart/marks").glob("*.json")}
    assert marks == {"measure", "shards", "statistics", "train", "evaluate", "export"}


def test_offline_one_sentence_says_what_is_missing_and_what_helps(run_here, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    status, said, complaint = run_here("end_to_end")
    assert (status, said) == (1, "")
    assert complaint.startswith("error: Artificio/WikiArt is not on this machine and the Hugging Face hub cannot be")
    assert complaint.rstrip().endswith("give source.path=FOLDER here.")
    assert complaint.count("\n") == 1


def test_a_training_that_is_not_known(run_here):
    status, _, complaint = run_here("end_to_end", "training=wikart", "until=estimate")
    assert status == 1
    assert "error: training=wikart: there is no `wikart` in the config group `experiment`. Choose one of:" in complaint
    assert ", wikiart," in complaint


def test_a_stage_that_is_not_known(run_here):
    status, _, complaint = run_here("end_to_end", "until=paint")
    assert status == 1
    assert "until=paint is not a stage: choose one of estimate, shards" in complaint
