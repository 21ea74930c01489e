"""Metrics by name: every key of evaluate.yaml builds one, says what it means, and tells a figure in one line."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from diffusion_art.config import class_of, config_dir, plain
from diffusion_art.errors import UserError
from diffusion_art.evaluation.measure import rows_by_column
from diffusion_art.evaluation.metrics import Figure, metrics_of
from diffusion_art.evaluation.metrics.kid import KernelDistance
from diffusion_art.sources.painter import Painter
from tests.evaluation.measured import noise, subject_of

with initialize_config_dir(str(config_dir()), version_base="1.3"):
    NODES: dict[str, Any] = plain(compose("evaluate", ["pictures=1024"])).get("metric")


@pytest.mark.parametrize("name", NODES)
def test_every_key_is_a_metric_that_says_what_it_means(name: str):
    metric = metrics_of(NODES, [name])[name]
    assert metric.figures
    assert len(metric.says()) > 40
    assert "Paper" not in metric.says()
    assert all(figure.better in ("higher", "lower", "neither") for figure in metric.figures)


def test_names_and_nodes_that_are_no_metrics_are_refused():
    with pytest.raises(UserError, match=r"\['beauty'\] is unknown: choose from caption_following, fd"):
        metrics_of(NODES, ["kid", "beauty"])
    with pytest.raises(UserError, match=r"metric\.mine builds a Painter, which is no metric"):
        metrics_of({"mine": {"_target_": "diffusion_art.sources.painter.Painter"}}, ["mine"])


def test_a_figure_tells_its_error_in_its_own_unit():
    result = {"share": 0.25, "spread": 0.012, "none": None}
    assert Figure("share", "share", "higher", error="spread", percent=True).told(result) == "25.0 +- 1.2 %"
    assert Figure("share", "share", "higher", error="spread").told(result) == "0.25 +- 0.012"
    assert Figure("none", "none", "lower").told(result) == "none"


def test_a_slice_is_the_metric_of_its_pictures_alone():
    metric, subject = KernelDistance(pictures=40, features="judge"), subject_of(noise)
    rows = rows_by_column(subject.real.columns(40), ["genre", "nothing"])
    assert list(rows) == ["genre"]
    sizes = [len(chosen) for chosen in rows["genre"].values()]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == 40
    whole = metric.of_rows(subject, range(40))
    assert whole == pytest.approx(metric.measure(subject)["kid"], rel=1e-9)
    assert metric.of_rows(subject, range(20)) != whole


def test_a_class_is_known_by_what_it_is():
    assert issubclass(class_of({"_target_": "diffusion_art.sources.painter.painter.Painter"}), Painter)
    for refused in ("os.system", "diffusion_art.evaluation.train_judge.train_judge"):
        with pytest.raises(UserError, match="not on the list"):
            class_of({"_target_": refused})
    with pytest.raises(UserError, match="is a function"):
        class_of({"_target_": "diffusion_art.evaluation.metrics.metrics_of"})
