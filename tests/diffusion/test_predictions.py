from __future__ import annotations

import pytest
import torch

from diffusion_art.diffusion.denoiser import X0, Epsilon, Flow, V, check_prediction
from diffusion_art.diffusion.schedules import CosineSchedule, LinearBeta
from diffusion_art.errors import UserError
from diffusion_art.experiments.edm import Edm
from tests.diffusion.shelf import PAIRS, PREDICTIONS, SCHEDULES, eps_of_x0

B = 33


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, B, 3, 4, 4, generator=generator, dtype=torch.float64)


def scales(schedule, *, low=0.01, high=1.0):
    t = torch.linspace(low, high, B, dtype=torch.float64)
    return [scale[:, None, None, None] for scale in SCHEDULES[schedule].alpha_sigma(t)]


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
def test_to_x0_inverts_the_target(schedule, prediction, images):
    """Also at t = 1, where a zero-terminal-SNR schedule has alpha = 0."""
    (x_0, eps), (alpha, sigma) = images, scales(schedule)
    x_t = alpha * x_0 + sigma * eps
    out = PREDICTIONS[prediction].target(x_0, eps, alpha, sigma)
    recovered = PREDICTIONS[prediction].to_x0(out, x_t, alpha, sigma)
    torch.testing.assert_close(recovered, x_0, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(eps_of_x0(recovered, x_t, alpha, sigma), eps, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
def test_x0_error_scale_is_the_slope_of_to_x0(schedule, prediction, images):
    (x_t, out), (alpha, sigma) = images, scales(schedule)
    kind = PREDICTIONS[prediction]
    moved = kind.to_x0(out + 1, x_t, alpha, sigma) - kind.to_x0(out, x_t, alpha, sigma)
    scale = kind.x0_error_scale(alpha, sigma).expand_as(moved)
    torch.testing.assert_close(moved.abs(), scale, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("alpha", "sigma"), [(0.0, 1.0), (1.0, 0.0)])
def test_both_ends_are_free_of_division_by_zero(prediction, alpha, sigma, images):
    x_t, out = images.float()
    ends = torch.tensor(alpha), torch.tensor(sigma)
    kind = PREDICTIONS[prediction]
    assert torch.isfinite(kind.to_x0(out, x_t, *ends)).all()
    assert torch.isfinite(kind.x0_error_scale(*ends)).all()


def test_the_targets_are_the_published_ones():
    x_0, eps, alpha, sigma = (torch.tensor(value) for value in (2.0, 3.0, 0.8, 0.6))
    targets = [kind.target(x_0, eps, alpha, sigma).item() for kind in (Epsilon(), V(), X0(), Flow())]
    assert targets == pytest.approx([3.0, 0.8 * 3 - 0.6 * 2, 2.0, 1.0])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_epsilon_is_refused_under_zero_terminal_snr_alone(schedule):
    for prediction in PREDICTIONS.values():
        if SCHEDULES[schedule].zero_terminal_snr and isinstance(prediction, Epsilon):
            with pytest.raises(UserError, match=r"terminal SNR is zero .* Use model/prediction=v"):
                check_prediction(prediction, SCHEDULES[schedule])
        else:
            check_prediction(prediction, SCHEDULES[schedule])


def test_the_refusal_names_the_schedule_and_the_mend():
    with pytest.raises(UserError, match="CosineSchedule") as refused:
        check_prediction(Epsilon(), CosineSchedule())
    assert "model/schedule=linear_beta" in str(refused.value)
    check_prediction(Epsilon(), LinearBeta())  # the mend works


def test_edm_is_the_published_preconditioning():
    """Karras et al. 2022, Table 1, in its own coordinates: x = x_t / alpha at noise level s = sigma / alpha."""
    s, sd = torch.tensor([0.002, 0.1, 1.0, 7.0, 80.0], dtype=torch.float64)[:, None, None, None], 0.5
    alpha, sigma = 1 / (1 + s), s / (1 + s)
    x, out = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c_skip, c_out = sd**2 / (s**2 + sd**2), s * sd / (s**2 + sd**2).sqrt()
    prediction = Edm(sigma_data=sd)
    torch.testing.assert_close(prediction.to_x0(out, alpha * x, alpha, sigma), c_skip * x + c_out * out)
    shown, clock = prediction.inputs(alpha * x, sigma.flatten(), alpha, sigma)
    torch.testing.assert_close(shown, x / (s**2 + sd**2).sqrt())
    c_noise = s.flatten().log() / 4
    torch.testing.assert_close(clock, (c_noise - c_noise[0]) / (c_noise[-1] - c_noise[0]))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_edm_keeps_input_and_target_at_unit_variance(schedule):
    alpha, sigma = scales(schedule, low=0.0)
    x_0, eps = torch.randn(2, B, 3, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_0, prediction = x_0 * 0.5, Edm(sigma_data=0.5)
    shown, clock = prediction.inputs(alpha * x_0 + sigma * eps, sigma.flatten(), alpha, sigma)
    for unit in (shown, prediction.target(x_0, eps, alpha, sigma)):
        torch.testing.assert_close(unit.std((1, 2, 3)), torch.ones(B, dtype=torch.float64), atol=0.05, rtol=0)
    assert (clock[0], clock.min(), clock.max() <= 1) == (0, 0, True)
    assert (clock.diff() >= 0).all()


def test_edm_with_unit_data_is_minus_v_on_the_circle(images):
    (x_0, eps), (alpha, sigma) = images, scales("cosine")
    targets = [kind.target(x_0, eps, alpha, sigma) for kind in (Edm(sigma_data=1.0), V())]
    torch.testing.assert_close(targets[0], -targets[1])
