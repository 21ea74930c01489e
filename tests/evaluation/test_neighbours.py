"""Precision, recall, density and coverage against counts by hand and in the cases that tell them apart."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.errors import UserError
from diffusion_art.evaluation.metrics import by_neighbours as neighbours
from diffusion_art.evaluation.metrics.by_neighbours import ByNeighbours, Neighbours, near_duplicates, to_nearest_other
from tests.evaluation.measured import noise, subject_of


def gaussian(count: int, *, seed: int, dim: int = 6) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_on_a_line_they_are_what_one_counts():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]]).double()  # radii to the nearest other: 1, 1, 2, 7
    painted = torch.tensor([[0.5], [4.5], [-5.0]]).double()  # radii: 4, 4, 5.5
    seen = Neighbours.of(real, painted, nearest=1)
    assert seen.precision == pytest.approx(2 / 3)  # 0.5 is in two balls, 4.5 in those of 3 and 10, -5 in none
    assert seen.density == pytest.approx((2 + 2 + 0) / 3)
    assert seen.recall == pytest.approx(3 / 4)  # 10 is 5.5 from the nearest painted one
    assert seen.coverage == pytest.approx(4 / 4)


def test_pictures_of_one_kind_alone_are_precise_and_recall_little():
    real = torch.cat([gaussian(200, seed=0), gaussian(200, seed=1) + 30])
    one_kind, both = gaussian(400, seed=2), torch.cat([gaussian(200, seed=3), gaussian(200, seed=4) + 30])
    alone, whole = (Neighbours.of(real, painted, nearest=5) for painted in (one_kind, both))
    assert alone.precision > 0.8
    assert alone.recall < 0.55 < whole.recall
    assert alone.coverage < 0.55 < whole.coverage
    assert whole.density == pytest.approx(1, abs=0.25)


def test_an_outlier_spoils_precision_and_not_density():
    real = gaussian(300, seed=0)
    real[0] += 200  # a ball that reaches everywhere
    elsewhere = gaussian(300, seed=1) + 12
    seen = Neighbours.of(real, elsewhere, nearest=3)
    assert seen.precision == 1
    assert seen.density == pytest.approx(1 / 3, abs=0.01)


def test_fewer_pictures_than_neighbours_are_refused():
    with pytest.raises(UserError, match=r"nearest=5 .* there are 5: give pictures=6"):
        Neighbours.of(gaussian(5, seed=0), gaussian(9, seed=1), nearest=5)


def test_near_duplicates_are_found_once_the_nearest_first():
    features = gaussian(300, seed=0, dim=16)
    features[200] = 3 * features[7]  # the length says nothing
    features[11] = features[250] + 0.02 * gaussian(1, seed=1, dim=16)[0]
    pairs = near_duplicates(features, within=0.01)
    assert [(pair.first, pair.second) for pair in pairs] == [(7, 200), (11, 250)]
    assert pairs[0].distance < 1e-9 < pairs[1].distance < 0.01
    apart = to_nearest_other(features)
    assert (apart < 0.01).nonzero().flatten().tolist() == [7, 11, 200, 250]
    assert apart[11].item() == pytest.approx(pairs[1].distance)


def test_near_duplicates_are_the_same_when_distances_come_in_parts(monkeypatch):
    features = gaussian(50, seed=0, dim=4)
    whole = near_duplicates(features, within=0.05)
    monkeypatch.setattr(neighbours, "ROWS", 7)
    parts = near_duplicates(features, within=0.05)
    assert [(pair.first, pair.second) for pair in parts] == [(pair.first, pair.second) for pair in whole]
    assert len(whole) > 3


class MeanDistance(ByNeighbours):
    """The mean distance from a real picture to a painted one: of a plain mean one knows the standard error."""

    key = "distance"

    def of(self, neighbours: Neighbours) -> float:
        return float(neighbours.across.mean())


def test_the_error_bar_of_a_plain_mean_is_its_standard_error(monkeypatch):
    monkeypatch.setattr("diffusion_art.evaluation.metrics.by_neighbours.HALVES", 400)
    metric, subject = MeanDistance(pictures=60, features="judge"), subject_of(noise)
    result = metric.measure(subject)
    features = subject.networks.features("judge")
    across = torch.cdist(subject.real_features(features, 60), subject.painted_features(features, 60))
    assert result["distance"] == pytest.approx(float(across.mean()))
    known = sum(float(across.mean(dim).var() / 60) for dim in (0, 1)) ** 0.5
    assert result["error"] == pytest.approx(known, rel=0.15)
