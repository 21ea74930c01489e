from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler

from diffusion_art.diffusion.schedules import (
    CosineSchedule,
    DiscreteSchedule,
    Flow,
    LinearBeta,
    SquaredCosCapV2,
)
from diffusion_art.errors import UserError
from tests.diffusion.shelf import SCHEDULES

ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)
INSIDE = torch.linspace(0, 1, 2003, dtype=torch.float64)[1:-1]  # between the knots of the discrete ones


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_exact(schedule, dtype):
    alpha, sigma = schedule.alpha_sigma(ENDS.to(dtype))
    assert (alpha[0], sigma[0]) == (1, 0)
    assert (alpha[1] == 0) == schedule.zero_terminal_snr
    assert 0.99 < sigma[1] <= 1
    assert 0 <= alpha[1] < 0.01
    assert schedule.log_snr(ENDS.to(dtype))[0] == math.inf


def test_log_snr_falls_strictly(schedule):
    log_snr = schedule.log_snr(INSIDE)
    assert torch.isfinite(log_snr).all()
    assert (log_snr.diff() < 0).all()


def test_variance_preserving_says_so(schedule):
    alpha, sigma = schedule.alpha_sigma(INSIDE)
    on_circle = torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha), atol=1e-12)
    assert on_circle == schedule.variance_preserving


def test_t_of_log_snr_inverts_log_snr(schedule):
    torch.testing.assert_close(schedule.t_of_log_snr(schedule.log_snr(INSIDE)), INSIDE, atol=1e-9, rtol=0)
    beyond = torch.tensor([math.inf, 100.0, -100.0, -math.inf], dtype=torch.float64)
    torch.testing.assert_close(schedule.t_of_log_snr(beyond), beyond.new_tensor([0, 0, 1, 1]), atol=1e-9, rtol=0)


def test_log_snr_slope_is_the_derivative(schedule):
    t = INSIDE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(schedule.log_snr(t).sum(), t)
    torch.testing.assert_close(schedule.log_snr_slope(INSIDE), slope, rtol=1e-7, atol=0)


def test_float32_is_as_good_as_float32_can_be(schedule):
    """Near t = 0 the noise, near t = 1 the signal is small: both must keep their relative precision."""
    t = INSIDE.float()
    for low, high in zip(schedule.alpha_sigma(t), schedule.alpha_sigma(t.double())):
        torch.testing.assert_close(low.double(), high, rtol=2e-3, atol=1e-9)
        torch.testing.assert_close(low.double(), high, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_shape_and_dtype_are_those_of_t(schedule, shape):
    t = torch.full(shape, 0.4)
    answers = [*schedule.alpha_sigma(t), schedule.log_snr(t), schedule.log_snr_slope(t)]
    answers.append(schedule.t_of_log_snr(schedule.log_snr(t)))
    assert all(answer.shape == shape and answer.dtype == torch.float32 for answer in answers)


@pytest.mark.parametrize("kind", [CosineSchedule, Flow])
def test_shift_moves_log_snr(kind):
    moved = kind(shift=4.0).log_snr(INSIDE) - kind(shift=1.0).log_snr(INSIDE)
    torch.testing.assert_close(moved, torch.full_like(moved, -2 * math.log(4)))


def test_cosine_without_zero_terminal_snr_ends_at_the_papers_floor():
    schedule = CosineSchedule(zero_terminal_snr=False)
    assert schedule.log_snr(ENDS)[1].item() == pytest.approx(-15)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize(("kind", "beta_schedule"), [(SquaredCosCapV2, "squaredcos_cap_v2"), (LinearBeta, "linear")])
def test_discrete_knots_are_those_of_diffusers(kind, beta_schedule, zero_snr):
    theirs = DDIMScheduler(beta_schedule=beta_schedule, rescale_betas_zero_snr=zero_snr)
    ours = kind(zero_terminal_snr=zero_snr)
    k = torch.arange(1000, dtype=torch.float64)
    alpha, sigma = ours.alpha_sigma((k + 1) / 1000)
    torch.testing.assert_close(alpha**2, theirs.alphas_cumprod.double(), rtol=2e-4, atol=2e-7)
    torch.testing.assert_close(sigma**2, 1 - theirs.alphas_cumprod.double(), rtol=2e-3, atol=2e-7)
    assert ours.num_train_timesteps == 1000
    assert ours.zero_terminal_snr == zero_snr


def test_a_schedule_can_be_made_of_any_betas():
    betas = torch.tensor([0.1, 0.2, 0.5])
    alpha, _ = DiscreteSchedule(betas).alpha_sigma(torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]))
    torch.testing.assert_close(alpha**2, torch.tensor([1.0, 0.9, 0.72, 0.36]))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: CosineSchedule(shift=0.0), "shift must be a positive number, not 0.0"),
        (lambda: Flow(shift=float("nan")), "not nan"),
        (lambda: SquaredCosCapV2(num_train_timesteps=1), "at least 2, not 1"),
        (lambda: LinearBeta(beta_start=0.5, beta_end=0.1), "not 0.5 and 0.1"),
    ],
)
def test_impossible_settings_are_refused(build, said):
    with pytest.raises(UserError, match=said):
        build()


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0, 2.0])
def test_resized_schedules_hide_as_much_of_smaller_pictures(schedule, ratio):
    """Means over blocks of n x n pixels keep alpha and have sigma / n: the schedule of pictures 1 / n as large."""
    resized = schedule.resized(ratio)
    alpha, sigma = (scale[1:-1] for scale in resized.alpha_sigma(INSIDE))
    moved = 1.0 if isinstance(schedule, DiscreteSchedule) else ratio  # which has no shift to move
    whole_alpha, whole_sigma = (scale[1:-1] for scale in schedule.alpha_sigma(INSIDE))
    torch.testing.assert_close(alpha / sigma, whole_alpha / (whole_sigma * moved), rtol=1e-9, atol=0)
    assert resized.zero_terminal_snr == schedule.zero_terminal_snr
    assert resized.variance_preserving == schedule.variance_preserving
    assert type(resized) is type(schedule)
