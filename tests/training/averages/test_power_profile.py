"""EDM2's profiles: closed forms against sums, and averages made afterwards against averages tracked all along."""

from __future__ import annotations

import pytest
import torch

from diffusion_art.errors import UserError
from diffusion_art.training.averages.power_profile import (
    UNIFORM,
    gamma_of,
    overlap,
    power_decay,
    reconstruct,
    sigma_rel_of,
)

TRACKED = (0.05, 0.10)


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_exponent_solves_the_papers_cubic(sigma_rel):
    gamma = gamma_of(sigma_rel)
    assert sigma_rel_of(gamma) == pytest.approx(sigma_rel, rel=1e-12)
    assert (gamma + 2) ** 2 * (gamma + 3) * sigma_rel**2 == pytest.approx(gamma + 1, rel=1e-12)
    tau = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    p = (gamma + 1) * tau**gamma / 400_000
    spread = ((p * tau**2).sum() - (p * tau).sum() ** 2).sqrt()
    assert float(spread) == pytest.approx(sigma_rel, rel=1e-4)


def test_the_widest_is_the_mean_and_what_is_no_width_is_refused():
    assert gamma_of(UNIFORM) == pytest.approx(0.0, abs=1e-12)
    assert [power_decay(0.0, n) for n in (1, 2, 4)] == [0.0, 0.5, 0.75]
    for wrong in (0.0, -0.1, 0.3):
        with pytest.raises(UserError, match="no width"):
            gamma_of(wrong)


def test_overlaps_are_the_integrals_they_stand_for():
    cases = [(3.0, 2.0, 7.0, 5.0), (7.0, 0.0, 3.0, 17.0), (4.0, 6.9, 4.0, 6.9)]
    for step, gamma, other, other_gamma in cases:
        tau = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000 * min(step, other)
        p = (gamma + 1) * tau**gamma / step ** (gamma + 1)
        q = (other_gamma + 1) * tau**other_gamma / other ** (other_gamma + 1)
        closed = overlap(*(torch.tensor(x, dtype=torch.float64) for x in (step, gamma, other, other_gamma)))
        assert float(closed) == pytest.approx(float((p * q).mean()) * min(step, other), rel=1e-7)


def _track(path: torch.Tensor, widths) -> torch.Tensor:
    """step x width: power-function averages of a path of weights, by the update rule."""
    gammas, state, rows = [gamma_of(width) for width in widths], torch.zeros(len(widths), path.shape[1]).double(), []
    for n, theta in enumerate(path, 1):
        decay = torch.tensor([power_decay(gamma, n) for gamma in gammas], dtype=torch.float64)[:, None]
        state = decay * state + (1 - decay) * theta
        rows.append(state)
    return torch.stack(rows)


def test_the_update_rule_gives_the_profiles_weights():
    steps, gamma = 40, gamma_of(0.1)
    weights = _track(torch.eye(steps, dtype=torch.float64), [0.1])[-1, 0]  # of each update, in the average
    k = torch.arange(steps + 1, dtype=torch.float64)
    torch.testing.assert_close(weights, (k ** (gamma + 1)).diff() / steps ** (gamma + 1))


def _columns(every: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    steps = torch.arange(1, count + 1, dtype=torch.float64).repeat_interleave(2) * every
    return steps, torch.tensor([gamma_of(width) for width in TRACKED], dtype=torch.float64).repeat(count)


@pytest.mark.parametrize(
    ("sigma_rel", "within"), [(0.05, 1e-7), (0.10, 1e-7), (0.075, 4e-4), (0.15, 1e-3), (0.2, 3e-3)]
)
def test_an_average_made_afterwards_is_the_one_tracked_all_along(sigma_rel, within):
    """On noisy weights that settle, and by its own account of the error, which falls as snapshots are added."""
    torch.manual_seed(0)
    every, count = 20, 50
    time = torch.arange(1, every * count + 1, dtype=torch.float64)[:, None] / (every * count)
    path = torch.exp(-5 * time) * torch.randn(8).double() + 0.1 * torch.randn(len(time), 8).double()
    tracked = _track(path, [*TRACKED, sigma_rel])
    steps, gammas = _columns(every, count)
    mixture = reconstruct(steps, gammas, step=every * count, gamma=gamma_of(sigma_rel))
    made = mixture.shares @ tracked[every - 1 :: every, :2].flatten(0, 1)
    # Cauchy-Schwarz: off by at most the error, times the norm of the profile, times that of the path
    at = torch.tensor([every * count, gamma_of(sigma_rel)], dtype=torch.float64)
    bound = overlap(*at, *at).sqrt() * (path**2).sum(0).sqrt()
    assert mixture.error <= within
    assert ((made - tracked[-1, 2]).abs() <= max(mixture.error, 1e-12) * bound).all()
    assert (made - tracked[-1, 2]).abs().max() < within
    coarse = reconstruct(*_columns(2 * every, count // 2), step=every * count, gamma=gamma_of(sigma_rel))
    assert mixture.error <= coarse.error + 1e-7


def test_weights_that_never_moved_come_back_as_they_are():
    steps, gammas = _columns(10, 6)
    for width in (0.03, 0.15, 0.25):
        mixture = reconstruct(steps, gammas, step=60, gamma=gamma_of(width))
        assert float(mixture.shares.sum()) == pytest.approx(1.0, abs=1e-12)


def test_the_shares_are_the_best_that_add_up_to_one():
    steps, gammas = _columns(10, 8)
    mixture = reconstruct(steps, gammas, step=80, gamma=gamma_of(0.15))
    gram = overlap(steps[:, None], gammas[:, None], steps, gammas)
    at, exponent = torch.full_like(steps, 80), torch.full_like(steps, gamma_of(0.15))
    wanted, norm = overlap(steps, gammas, at, exponent), overlap(at, exponent, at, exponent)[0]

    def missed(shares: torch.Tensor) -> float:
        return float((norm - 2 * shares @ wanted + shares @ gram @ shares) / norm) ** 0.5

    assert mixture.error == pytest.approx(missed(mixture.shares), rel=1e-6)
    torch.manual_seed(0)
    for _ in range(20):
        away = torch.randn(len(steps), dtype=torch.float64) * 1e-3
        assert missed(mixture.shares + away - away.mean()) > mixture.error
