"""What is said of a model follows from the config that its checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffusion_art.runs import Run
from diffusion_art.serving.about import better, place_of, trained
from diffusion_art.sources.painter import STYLES

PAINTER = {"_target_": "diffusion_art.sources.painter.Painter"}


def config(path: str, source: dict[str, Any] | None = None) -> dict[str, Any]:
    data = {"path": path, "source": source, "global_batch_size": 64}
    return {"trainer": {"max_steps": 1250, "accumulate_grad_batches": 1}, "data": data}


def test_a_synthetic_model_points_to_real_pictures():
    told = config("data/painter-64px", PAINTER)
    assert trained(told, 1250).startswith(
        "Trained for 1,250 steps, 80,000 pictures of painter-64px. These are synthetic"
    )
    assert trained(told, 1250).endswith(f"in the manner of {len(STYLES)} styles.".replace("16", "sixteen"))
    assert "data.path=FOLDER" in better(told, 1250, run="logs/quickstart/a")
    assert "make wikiart" in better(told, 1250, run="logs/quickstart/a")


def test_a_run_that_was_stopped_points_to_its_end():
    told = config("data/painter-64px", PAINTER)
    assert "Trained for 500 of 1,250 steps" in trained(told, 500)
    assert better(told, 500, run="logs/quickstart/a").endswith("ckpt_path=logs/quickstart/a")


def test_a_whole_run_on_pictures_of_ones_own_points_to_a_longer_one():
    told = config("/home/me/scans")
    assert trained(told, 1250).endswith("of scans.")
    assert "trainer.max_steps=2500" in better(told, 1250, run="logs/mine/a")
    assert trained({}, 5) == "Trained for 5 steps."


@pytest.mark.parametrize(
    ("file", "typed"),
    [
        ("/home/me/logs/quickstart/a/checkpoints/last.ckpt", "logs/quickstart/a"),
        ("/home/me/logs/quickstart/sweep_a/3/checkpoints/last.ckpt", "logs/quickstart/sweep_a/3"),
        ("/home/me/runs/quickstart/a/checkpoints/last.ckpt", "logs/NAME/RUN"),
        ("/home/me/logs/quickstart/a/painter.safetensors", "logs/NAME/RUN"),
    ],
)
def test_a_run_is_named_by_where_it_lies(file, typed):
    assert place_of(Run(Path(file))) == typed
