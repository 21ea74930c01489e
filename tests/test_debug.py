"""`+debug=...` as a person would use it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from diffusion_art.training.step_profile import _compressed
from tests.test_train import TINY

SMALL = [*TINY, "data.num_workers=0", "data.url=shards", "callbacks.loss_plot=null"]


@pytest.fixture
def asked(painter_shards) -> list[str]:
    return [*SMALL, f"data.path={painter_shards}"]


@pytest.mark.slow
def test_profile_says_in_words_where_a_step_goes_and_leaves_a_trace(asked, run_here, tmp_path):
    words = [word for word in asked if word != "+debug=tiny"]
    few = [
        "+debug=[tiny,profile]",
        "run=p",
        "trainer.profiler.skip=1",
        "trainer.profiler.steps=4",
        "trainer.max_steps=7",
    ]
    status, said, complaints = run_here("train", *words, *few, "trainer.profiler.traced=2")
    assert status == 0, said + complaints
    folder = tmp_path / "logs/profile/p"
    table = (folder / "profile.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    shares = {where: float(share.rstrip("%")) for where, _, share in rows[1:]}
    assert {
        "network, forward pass",
        "backward pass of all of them",
        "text encoder",
        "optimiser, clipping and averaging of weights",
        "waiting for data",
        "terms of the loss, forward pass",
        "moving the batch to the device",
    } <= shares.keys()
    assert sum(shares.values()) == pytest.approx(100, abs=1)
    assert "ms a step, over 4 steps after 1 others" in table
    assert table.splitlines()[2] in said
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    named = [event["name"] for event in events if event.get("ph") == "X"]
    assert named.count("network, forward pass") == 2
    assert any(name.startswith("aten::") for name in named)
    assert not list(folder.rglob("*.ckpt"))


def test_a_large_trace_is_compressed(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion_art.training.step_profile.LARGE_BYTES", 10)
    (tmp_path / "trace.json").write_text('{"traceEvents": []}')
    packed = _compressed(tmp_path / "trace.json")
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json.gz"]
    assert json.loads(gzip.decompress(packed.read_bytes())) == {"traceEvents": []}


@pytest.mark.slow
def test_overfit_learns_a_few_pictures_and_ends_in_a_grid_of_their_captions(asked, run_here, tmp_path):
    words = [word for word in asked if word != "+debug=tiny"]
    status, said, complaints = run_here(
        "train",
        *words,
        *("+debug=[tiny,overfit]", "run=o", "trainer.max_steps=60", "model/prediction=x0", "objective=jit"),
        *("trainer.val_check_interval=60", "callbacks.samples.every_n_steps=60", "callbacks.verdict.falls_by=0.2"),
    )
    assert status == 0, said + complaints
    folder = tmp_path / "logs/overfit/o"
    assert "it fell by" in said
    losses = pd.read_csv(folder / "metrics.csv")["train/loss"].dropna()
    assert losses.iloc[-3:].mean() < losses.iloc[:3].mean()
    asked_for = json.loads((folder / "samples/step_00000060.json").read_text())
    assert 0 < len(asked_for["prompts"]) <= 8
    captions = _captions_of_training(asked, tmp_path)
    assert set(asked_for["prompts"]) <= captions


def _captions_of_training(asked: list[str], tmp_path: Path) -> set[str]:
    """The captions of the batch that the run of the test above repeats."""
    from omegaconf import OmegaConf

    from diffusion_art.training.build import build_datamodule

    data = build_datamodule(OmegaConf.to_container(OmegaConf.load(tmp_path / "logs/overfit/o/config.yaml")))
    data.trainer = None
    data.setup()
    loader = data.train_dataloader()
    loader.dataset.last_batch = 1
    (batch,) = list(loader)
    data.teardown()
    return set(batch.captions)


@pytest.mark.parametrize("experiment", ["autoencoder", "clip"])
def test_tiny_goes_with_models_that_have_no_network_or_text_tower_of_that_kind(asked, run_here, experiment):
    words = [word for word in asked if not word.startswith(("+debug=", "+experiment="))]
    words += [f"+experiment={experiment}", "+debug=[tiny,one_batch]", "data.val_samples=2"]
    status, said, complaints = run_here("train", *words)
    assert status == 0, said + complaints
    assert "one step and its validation ran: train/loss " in said


def test_one_batch_goes_through_and_leaves_nothing(asked, run_here, tmp_path):
    words = [word for word in asked if word != "+debug=tiny"]
    status, said, complaints = run_here("train", *words, "+debug=[tiny,one_batch]", "run=b")
    assert status == 0, said + complaints
    assert "one step and its validation ran: train/loss " in said
    assert ", val/loss " in said
    assert "no weights and no figures of this run will be saved: it has neither callbacks.checkpoints nor a log" in said
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".ckpt", ".csv", ".png", ".md")]
