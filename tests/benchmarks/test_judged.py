"""When one way of painting follows captions as well as another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from diffusion_art.diffusion.samplers.ddim import DDIM
from diffusion_art.runs import load_run
from tests.fakes import toy_run

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import judged


@pytest.mark.parametrize(
    ("style", "count", "good"),
    [
        (0.93, 240, True),  # better
        (0.91, 240, True),
        (0.89, 240, True),  # a standard error is 0.027
        (0.87, 240, False),
        (0.89, 10_000, False),  # and 0.0042 here
    ],
)
def test_as_good_is_to_a_standard_error_of_the_difference_of_two_shares(style, count, good):
    theirs = {"style": 0.91, "palette": 1.0}
    assert judged.as_good({"style": style, "palette": 1.0}, theirs, count=count) is good
    assert not judged.as_good({"style": style, "palette": 0.9}, theirs, count=count)


@pytest.mark.parametrize(("a", "b", "count", "error"), [(0.5, 1.0, 100, 0.05), (0.9, 0.9, 18, 0.1), (1.0, 1.0, 9, 0.0)])
def test_the_error_of_a_difference(a, b, count, error):
    assert judged.error_of_difference(a, b, count) == pytest.approx(error)


@pytest.mark.slow
def test_what_was_judged_is_kept_by_way_and_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(judged, "KEPT", tmp_path / "kept")
    run = load_run(toy_run(tmp_path))
    two, three = (DDIM(num_steps=steps) for steps in (2, 3))
    found = judged.shares(run, two, count=16, fast=False)
    assert set(found) == {"style", "palette"}
    (file,) = judged.KEPT.iterdir()
    file.write_text('{"style": 0.25, "palette": 0.5}')
    assert judged.shares(run, two, count=16, fast=False) == {"style": 0.25, "palette": 0.5}
    judged.shares(run, three, count=16, fast=False)
    assert len(list(judged.KEPT.iterdir())) == 2
