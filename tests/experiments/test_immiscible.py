"""Immiscible noise: nearer to its picture, the same on any ranks, and an assignment that is the best there is."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from diffusion_art.config import build
from diffusion_art.diffusion.denoiser import Epsilon
from diffusion_art.diffusion.objective import NoWeighting, Objective, Uniform
from diffusion_art.diffusion.schedules import CosineSchedule
from diffusion_art.errors import UserError
from diffusion_art.experiments.immiscible import Assigned, Nearest, assignment
from diffusion_art.tensors import Batch
from diffusion_art.training.noise import NOISE, Iid, TrainingNoise, draw_step, generator
from tests.diffusion.shelf import shelf

SHAPE = (3, 8, 8)
POSITIONS = list(range(40, 56))
PICTURES = torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
KINDS = {"iid": Iid(), "nearest": Nearest(candidates=8), "assigned": Assigned(block=4)}


def distances(eps: torch.Tensor) -> torch.Tensor:
    return (eps - PICTURES).square().sum((1, 2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_draw_the_halves_of_what_one_draws(kind):
    whole = KINDS[kind](PICTURES, POSITIONS, seed=3)
    halves = [KINDS[kind](PICTURES[rows], POSITIONS[rows], seed=3) for rows in (slice(0, 8), slice(8, 16))]
    assert torch.equal(whole, torch.cat(halves))
    assert torch.equal(whole, KINDS[kind](PICTURES, POSITIONS, seed=3))
    assert not torch.equal(whole, KINDS[kind](PICTURES, POSITIONS, seed=4))
    assert isinstance(KINDS[kind], TrainingNoise)
    assert whole.dtype == torch.float32


def test_the_nearest_of_k_draws_is_taken():
    eps = Nearest(candidates=6)(PICTURES, POSITIONS, seed=1)
    for row, picture, position in zip(eps, PICTURES, POSITIONS):
        drawn = torch.empty(6, *SHAPE).normal_(generator=generator(1, NOISE, position))
        far = (drawn - picture).square().sum((1, 2, 3))
        assert torch.equal(row, drawn[far.argmin()])
    assert torch.equal(Nearest(candidates=1)(PICTURES, POSITIONS, seed=1), Iid()(PICTURES, POSITIONS, seed=1))
    means = [distances(Nearest(candidates=k)(PICTURES, POSITIONS, seed=1)).mean() for k in (1, 4, 64)]
    assert means[0] > means[1] > means[2]


def test_assigned_noise_is_the_same_noise_in_a_better_order():
    iid, eps = Iid()(PICTURES, POSITIONS, seed=1), Assigned(block=4)(PICTURES, POSITIONS, seed=1)
    for start in range(0, 16, 4):
        rows = slice(start, start + 4)
        options = [(iid[rows][list(order)] - PICTURES[rows]).square().sum() for order in permutations(range(4))]
        torch.testing.assert_close((eps[rows] - PICTURES[rows]).square().sum(), torch.stack(options).min())
        assert sorted(iid[rows].sum((1, 2, 3)).tolist()) == sorted(eps[rows].sum((1, 2, 3)).tolist())
    assert distances(Assigned(block=16)(PICTURES, POSITIONS, seed=1)).sum() < distances(eps).sum()


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_the_assignment_is_the_cheapest_of_all(n):
    rng = np.random.default_rng(n)
    for cost in (rng.normal(size=(n, n)), rng.integers(0, 3, (n, n)).astype(float)):
        found = assignment(cost)
        assert sorted(found) == list(range(n))
        least = min(sum(cost[row, column] for row, column in enumerate(order)) for order in permutations(range(n)))
        assert sum(cost[row, column] for row, column in enumerate(found)) == pytest.approx(least)


@pytest.mark.parametrize("n", [17, 64])
def test_a_hidden_assignment_is_found(n):
    """Costs u_i + v_j along a hidden permutation and dearer elsewhere: no other assignment can do as well."""
    rng = np.random.default_rng(n)
    hidden = rng.permutation(n)
    u, v = rng.normal(size=n), rng.normal(size=n)
    cost = u[:, None] + v + rng.uniform(0.01, 3, (n, n))
    cost[range(n), hidden] = u + v[hidden]
    assert assignment(cost) == hidden.tolist()


def test_a_step_draws_the_noise_it_is_told_to():
    batch = Batch(PICTURES, [""] * 16, [""] * 16, list(range(32, 48)), 3)
    draw = draw_step(
        batch,
        seed=0,
        global_batch_size=16,
        times=Uniform(),
        caption_dropout=0.0,
        noise=lambda positions: Nearest()(PICTURES, positions, seed=0),
    )
    assert torch.equal(draw.eps, Nearest()(PICTURES, list(range(32, 48)), seed=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_asked_for_the_noise_it_is_mixed_with(kind):
    """Elsewhere the right answer has twice the loss of silence (findings/ddpm_immiscible.sh)."""
    t, schedule = torch.full((16,), 0.5), CosineSchedule()
    alpha, sigma = (scale[:, None, None, None] for scale in schedule.alpha_sigma(t))
    objective = Objective(times=Uniform(), weighting=NoWeighting())
    loss = objective(
        lambda x_t, _: (x_t - alpha * PICTURES) / sigma,
        schedule=schedule,
        prediction=Epsilon(),
        x_0=PICTURES,
        eps=KINDS[kind](PICTURES, POSITIONS, seed=1),
        t=t,
    )
    assert loss.max() < 1e-6


def test_every_yaml_is_training_noise():
    assert all(isinstance(noise, TrainingNoise) for noise in shelf("noise").values())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Nearest(candidates=0), "candidates must be at least 1, not 0"),
        (lambda: Assigned(block=0), "block must be at least 1, not 0"),
        (lambda: Assigned(block=5)(PICTURES, POSITIONS, seed=0), "block=5 does not divide the 16 pictures"),
        (lambda: build({"_target_": "diffusion_art.training.noise.Nearest", "candidates": -2}), "not -2"),
    ],
)
def test_impossible_settings_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_costs_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite costs"):
        assignment(np.array([[np.nan]]))
