from __future__ import annotations

import pytest
import torch

from diffusion_art.diffusion.denoiser import AnyDenoiser, Denoiser
from diffusion_art.diffusion.predictions import V
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
