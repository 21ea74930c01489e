"""Distances against closed forms and against torchmetrics, and refusals where they would say nothing."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from diffusion_art.errors import UserError
from diffusion_art.evaluation.distances import (
    check_count,
    frechet_distance,
    frechet_error,
    kernel_distance,
    kernel_error,
    polynomial_kernels,
)


def gaussian(count: int, dim: int, *, seed: int) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(mean: torch.Tensor, root: torch.Tensor, *, seed: int) -> torch.Tensor:
    """1,200 vectors whose mean is exactly `mean` and whose covariance exactly root^T root."""
    x = gaussian(1200, len(mean), seed=seed)
    q = torch.linalg.qr(x - x.mean(0)).Q * (len(x) - 1) ** 0.5
    return mean + q @ root


def test_frechet_distance_of_commuting_gaussians_is_the_closed_form():
    stds, other = torch.tensor([0.5, 1.0, 2.0, 0.0]).double(), torch.tensor([1.5, 1.0, 0.1, 0.3]).double()
    mean, shifted = torch.zeros(4).double(), torch.tensor([1.0, -2.0, 0.0, 0.5]).double()
    turn = torch.linalg.qr(gaussian(4, 4, seed=3)).Q
    real, fake = exactly(mean, stds.diag() @ turn, seed=0), exactly(shifted, other.diag() @ turn, seed=1)
    expected = (shifted - mean).square().sum() + (stds - other).square().sum()
    assert frechet_distance(real, fake) == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_distance_is_torchmetrics():
    real, fake = gaussian(1200, 24, seed=0) @ gaussian(24, 24, seed=2), gaussian(1100, 24, seed=1) + 0.2
    expected = _compute_fid(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())
    assert frechet_distance(real, fake) == pytest.approx(expected.item(), rel=1e-8)


@pytest.mark.parametrize("fall", [1.0, 1.5, 2.0])
def test_many_small_directions_count_in_a_frechet_distance(fall):
    """Features have steep spectra: elsewhere these are 1 to 11 from themselves (findings/piq_fid.sh)."""
    variances = torch.arange(1, 257).double() ** -fall
    real = gaussian(1200, 256, seed=0) * (150 * variances / variances.sum()).sqrt()
    assert abs(frechet_distance(real, real)) < 1e-5
    assert frechet_distance(real, 1.1 * real) == pytest.approx(0.01 * real.square().sum().item() / 1199, rel=0.01)


def test_frechet_distance_is_a_distance_and_holds_where_features_are_constant():
    real, fake = gaussian(1000, 8, seed=0), gaussian(1000, 8, seed=1) * 2
    real[:, 5] = fake[:, 5] = 3.0  # a feature that never moves: both covariances are singular
    fake[:, 6] = fake[:, 7]
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-9)
    assert frechet_distance(real, fake) > 1


def test_few_pictures_are_refused_with_the_number_and_the_mend():
    with pytest.raises(UserError, match=r"999 pictures .* pictures=1000, or ask for kid"):
        frechet_distance(gaussian(1000, 4, seed=0), gaussian(999, 4, seed=1))
    with pytest.raises(UserError, match="pictures=2049"):
        check_count(2048, 2048)
    with pytest.raises(UserError, match="not finite"):
        kernel_distance(gaussian(300, 4, seed=0), torch.full((300, 4), torch.inf).double())
    with pytest.raises(UserError, match="pictures=256"):
        kernel_distance(gaussian(300, 4, seed=0), gaussian(100, 4, seed=1))
    with pytest.raises(ValueError, match="float64"):
        kernel_distance(gaussian(300, 4, seed=0), gaussian(300, 4, seed=1).float())


def test_kernel_distance_of_two_points_is_the_closed_form():
    real, fake = torch.tensor([[1.0, 2.0]]).double().expand(20, 2), torch.tensor([[-1.0, 0.5]]).double().expand(20, 2)
    expected = (5 / 2 + 1) ** 3 + (1.25 / 2 + 1) ** 3 - 2 * (0.0 / 2 + 1) ** 3
    mean, deviation = kernel_distance(real, fake, subset_size=7, subsets=5)
    assert mean == pytest.approx(expected, rel=1e-12)
    assert deviation == pytest.approx(0, abs=1e-9)


def test_kernel_distance_of_all_pictures_is_torchmetrics():
    real, fake = gaussian(120, 6, seed=0), gaussian(120, 6, seed=1) + 0.3
    mean, deviation = kernel_distance(real, fake, subset_size=120, subsets=3)
    assert mean == pytest.approx(poly_mmd(real, fake).item(), rel=1e-9)
    assert deviation is None  # three times the same subset
    assert kernel_distance(real, fake, subset_size=60, subsets=1)[1] is None
    assert kernel_distance(real, fake[:60], subset_size=60, subsets=3)[1] > 0  # one side is drawn from


def test_kernel_distance_is_unbiased_and_its_deviation_is_that_of_a_subset():
    """Of one distribution: 0 within the error of the mean over many independent pairs of sets."""
    values = [
        kernel_distance(gaussian(64, 4, seed=2 * k), gaussian(64, 4, seed=2 * k + 1), subset_size=64, subsets=1)[0]
        for k in range(100)
    ]
    drawn = torch.tensor(values)
    assert abs(drawn.mean()) < 3.5 * drawn.std() / len(drawn) ** 0.5
    real, fake = gaussian(1000, 4, seed=900), gaussian(1000, 4, seed=901)
    _, deviation = kernel_distance(real, fake, subset_size=64, subsets=100)
    assert deviation == pytest.approx(drawn.std().item(), rel=0.3)
    assert kernel_distance(real, fake, seed=1) == kernel_distance(real, fake, seed=1)
    assert kernel_distance(real, fake, seed=1) != kernel_distance(real, fake, seed=2)


def test_the_error_bar_of_a_frechet_distance_is_the_spread_of_independent_ones():
    pairs = [(gaussian(1000, 4, seed=2 * k), gaussian(1000, 4, seed=2 * k + 1) * 1.3 + 0.2) for k in range(40)]
    spread = torch.tensor([frechet_distance(*pair) for pair in pairs]).std().item()
    generator = torch.Generator().manual_seed(0)
    errors = [frechet_error(*pair, 20, generator) for pair in pairs[:8]]
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.35)


def test_the_error_bar_of_a_kernel_distance_is_the_spread_of_independent_ones():
    pairs = [(gaussian(60, 4, seed=2 * k), gaussian(60, 4, seed=2 * k + 1) + 0.5) for k in range(60)]
    spread = torch.tensor([kernel_distance(*pair, subset_size=60, subsets=1)[0] for pair in pairs]).std().item()
    errors = [kernel_error(*polynomial_kernels(*pair)) for pair in pairs]
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.3)
