from __future__ import annotations

import pytest
import torch

from diffusion_art.diffusion.denoiser import AnyDenoiser, Denoiser, DenoiserAtOneTime, V
from diffusion_art.diffusion.schedules import CosineSchedule
from tests.diffusion.shelf import PAIRS, PREDICTIONS, SCHEDULES, GaussianDenoiser, WavyNetwork, eps_of_x0


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
def test_any_prediction_of_the_perfect_network_gives_the_same_x_0_hat(schedule, prediction):
    schedule, prediction = SCHEDULES[schedule], PREDICTIONS[prediction]
    exact = GaussianDenoiser(schedule)

    def network(shown, clock):  # shown as the prediction likes it, so the truth comes from outside
        alpha, sigma = (scale[:, None, None, None] for scale in schedule.alpha_sigma(t))
        assert torch.equal(shown, prediction.inputs(x_t, t, alpha, sigma)[0])
        x_0_hat = exact(x_t, t)
        return prediction.target(x_0_hat, eps_of_x0(x_0_hat, x_t, alpha, sigma), alpha, sigma)

    x_t = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.01, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    denoiser = Denoiser(network, schedule=schedule, prediction=prediction)
    torch.testing.assert_close(denoiser(x_t, t), exact(x_t, t), atol=1e-9, rtol=1e-9)
    assert isinstance(denoiser, AnyDenoiser)


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
@pytest.mark.parametrize("clip", [False, True])
def test_one_time_as_a_number_is_that_time_for_every_row(schedule, prediction, clip):
    """Also at both ends, and with the clock and the scale that a prediction may show the network."""
    denoiser = Denoiser(
        WavyNetwork(dtype=torch.float64), schedule=SCHEDULES[schedule], prediction=PREDICTIONS[prediction], clip=clip
    )
    x_t = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (0.0, 0.02, 0.5, 0.97, 1.0):
        rows = torch.full((3,), t, dtype=torch.float64)
        torch.testing.assert_close(denoiser.at(x_t, t), denoiser(x_t, rows), atol=1e-9, rtol=1e-9)
    assert isinstance(denoiser, DenoiserAtOneTime)


def test_clip_holds_x_0_hat_in_the_image_range():
    x_t, t = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3, torch.full((4,), 0.5)
    kwargs = {"schedule": CosineSchedule(), "prediction": V()}
    free, clipped = Denoiser(WavyNetwork(), **kwargs), Denoiser(WavyNetwork(), **kwargs, clip=True)
    assert free(x_t, t).abs().max() > 1
    assert torch.equal(clipped(x_t, t), free(x_t, t).clamp(-1, 1))
    assert torch.equal(clipped.unclipped(x_t, t), free(x_t, t))


def test_a_half_precision_network_leaves_x_0_hat_in_float32():
    network = WavyNetwork(dtype=torch.bfloat16)
    denoiser = Denoiser(lambda x_t, t: network(x_t.bfloat16(), t.bfloat16()), schedule=CosineSchedule(), prediction=V())
    assert denoiser(torch.zeros(2, 3, 4, 4), torch.full((2,), 0.3)).dtype == torch.float32
