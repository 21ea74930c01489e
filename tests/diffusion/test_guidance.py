from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion_art.diffusion.denoiser import AnyDenoiser, Denoiser, V
from diffusion_art.diffusion.guidance import Guidance, bounded, tempering
from diffusion_art.diffusion.schedules import CosineSchedule
from diffusion_art.errors import UserError
from tests.diffusion.shelf import WavyNetwork, eps_of_x0

SCHEDULE = CosineSchedule()
X_T = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor([0.1, 0.4, 0.6, 0.95])


def denoiser(seed: int, *, clip: bool = False) -> Denoiser:
    return Denoiser(WavyNetwork(seed=seed), schedule=SCHEDULE, prediction=V(), clip=clip)


@pytest.fixture
def cond():
    return denoiser(1)


@pytest.fixture
def null():
    return denoiser(2)


def doubled_of(cond: Denoiser, null: Denoiser) -> Denoiser:
    calls = []

    def backbone(x_t, t):
        calls.append(len(x_t))
        half = len(x_t) // 2
        return torch.cat([cond.backbone(x_t[:half], t[:half]), null.backbone(x_t[half:], t[half:])])

    doubled = Denoiser(backbone, schedule=cond.schedule, prediction=cond.prediction, clip=cond.clip)
    doubled.calls = calls
    return doubled


def test_scale_1_is_plain_conditional_and_calls_nothing_else(cond, null):
    assert torch.equal(Guidance(cond, null, guidance_scale=1.0)(X_T, T), cond(X_T, T))
    assert null.backbone.calls == 0
    assert torch.equal(Guidance(cond, guidance_scale=1)(X_T, T), cond(X_T, T))


def test_scale_0_is_unconditional(cond, null):
    guided = Guidance(cond, null, guidance_scale=0.0)(X_T, T)
    torch.testing.assert_close(guided, null(X_T, T))


@pytest.mark.parametrize("guidance_scale", [-1.0, 0.5, 3.0, 7.5])
def test_guiding_x_0_hat_is_guiding_eps(cond, null, guidance_scale):
    alpha, sigma = (scale[:, None, None, None] for scale in SCHEDULE.alpha_sigma(T))
    eps_cond, eps_null, eps_guided = (
        eps_of_x0(d(X_T, T), X_T, alpha, sigma)
        for d in (cond, null, Guidance(cond, null, guidance_scale=guidance_scale))
    )
    torch.testing.assert_close(eps_guided, eps_null + guidance_scale * (eps_cond - eps_null), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"interval": (0.3, 0.7)}, {"rescale": 0.7}])
def test_one_doubled_call_equals_two(cond, null, settings):
    doubled = doubled_of(cond, null)
    once = Guidance(cond, doubled=doubled, guidance_scale=4.0, **settings)
    twice = Guidance(cond, null, guidance_scale=4.0, **settings)
    assert torch.equal(once(X_T, T), twice(X_T, T))
    assert doubled.calls == [2 * len(X_T)]


def test_the_interval_guides_its_rows_only(cond, null):
    limited = Guidance(cond, null, guidance_scale=4.0, interval=(0.3, 0.7))(X_T, T)
    everywhere = Guidance(cond, null, guidance_scale=4.0)(X_T, T)
    torch.testing.assert_close(limited[1:3], everywhere[1:3])
    torch.testing.assert_close(limited[[0, 3]], cond(X_T, T)[[0, 3]])
    assert not torch.allclose(limited[1:3], cond(X_T, T)[1:3])


def test_outside_the_interval_the_null_is_not_asked(cond, null):
    guidance = Guidance(cond, null, guidance_scale=4.0, interval=(0.3, 0.7))
    outside = torch.full((4,), 0.9)
    assert torch.equal(guidance(X_T, outside), cond(X_T, outside))
    assert null.backbone.calls == 0


@pytest.mark.parametrize("t", [0.2, 0.19999999999999996, 0.8, 0.8000000000000002])
def test_a_time_on_an_edge_is_guided_however_it_was_rounded(cond, null, t):
    limited = Guidance(cond, null, guidance_scale=4.0, interval=(0.2, 0.8))
    everywhere = Guidance(cond, null, guidance_scale=4.0)
    assert torch.equal(limited.at(X_T, t), everywhere.at(X_T, t))
    rows = torch.full((4,), t)
    assert torch.equal(limited(X_T, rows), everywhere(X_T, rows))
    assert torch.equal(limited.at(X_T, 0.801), cond.at(X_T, 0.801))


def test_full_rescale_restores_the_conditional_spread(cond, null):
    spread = [
        Guidance(cond, null, guidance_scale=6.0, rescale=rescale)(X_T, T).std((1, 2, 3)) for rescale in (0.0, 0.5, 1.0)
    ]
    torch.testing.assert_close(spread[2], cond(X_T, T).std((1, 2, 3)))
    torch.testing.assert_close(spread[1], (spread[0] + spread[2]) / 2)
    assert (spread[0] > spread[2]).all()


def test_clipping_comes_after_the_extrapolation():
    free = Guidance(denoiser(1), denoiser(2), guidance_scale=3.0)(X_T, T)
    clipped = Guidance(denoiser(1, clip=True), denoiser(2, clip=True), guidance_scale=3.0)
    assert free.abs().max() > 1
    assert torch.equal(clipped(X_T, T), free.clamp(-1, 1))


def test_dynamic_thresholding_is_imagens():
    """Saharia et al. 2022: s = percentile(|x|), at least 1; clip to [-s, s], divide by s. numpy has the last word."""
    x_0_hat = X_T * torch.tensor([0.2, 1.0, 2.0, 5.0])[:, None, None, None]
    found = bounded(x_0_hat, share=[0.9, 0.9, 0.0, 0.995])
    for row, picture, share in zip(found, x_0_hat.numpy(), (0.9, 0.9, None, 0.995), strict=True):
        s = max(1, np.quantile(np.abs(picture), share, method="inverted_cdf")) if share else 1
        np.testing.assert_allclose(row, np.clip(picture, -s, s) / s, rtol=1e-6)
    assert torch.equal(found[0], x_0_hat[0])  # what fits is left alone
    assert torch.equal(bounded(x_0_hat, share=[0, 0, 0, 0]), x_0_hat.clamp(-1, 1))


def test_a_threshold_keeps_detail_that_clipping_flattens():
    cond, null = denoiser(1, clip=True), denoiser(2, clip=True)
    clipped, kept = (Guidance(cond, null, guidance_scale=8.0, threshold=share)(X_T, T) for share in (0.0, 0.9))
    assert kept.abs().max() <= 1
    at_the_bounds = [(picture.abs() == 1).float().mean().item() for picture in (clipped, kept)]
    assert at_the_bounds[0] > 2 * at_the_bounds[1]
    assert at_the_bounds[1] == pytest.approx(0.1, abs=0.02)


def test_thresholding_needs_bounds(cond, null):
    with pytest.raises(UserError, match=r"threshold=0.9 needs latents .* use guidance.rescale"):
        Guidance(cond, null, guidance_scale=2.0, threshold=0.9)


def test_guiding_by_a_worse_model_leads_past_the_better_one():
    """Autoguidance: where both err in one direction, the worse one further, extrapolation lands nearer the truth."""
    truth = torch.zeros_like(X_T)

    class Off(Denoiser):
        def __init__(self, by: float) -> None:
            super().__init__(lambda x_t, t: x_t, schedule=SCHEDULE, prediction=V())
            self.by = by

        def unclipped(self, x_t, t):
            return truth + self.by

    guided = Guidance(Off(0.1), Off(0.3), guidance_scale=1.4)(X_T, T)
    torch.testing.assert_close(guided, truth + 0.02)


def test_tempering_reads_a_config():
    assert tempering() == {"interval": None, "rescale": 0.0, "threshold": 0.0}
    assert tempering(interval=[0, 1], rescale=1)["interval"] == (0.0, 1.0)
    with pytest.raises(UserError, match=r"interval .* not \(0.5,\)"):
        tempering(interval=[0.5])


@pytest.mark.parametrize("settings", [{}, {"interval": (0.3, 0.7)}, {"rescale": 0.7}, {"threshold": 0.9}])
@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 4.0])
def test_one_time_as_a_number_is_that_time_for_every_row(guidance_scale, settings):
    cond, null = denoiser(1, clip=True), denoiser(2, clip=True)
    for sides in ({"null": null}, {"doubled": doubled_of(cond, null)}):
        guidance = Guidance(cond, **sides, guidance_scale=guidance_scale, **settings)
        for t in (0.1, 0.3, 0.5, 0.9):
            torch.testing.assert_close(guidance.at(X_T, t), guidance(X_T, torch.full((4,), t)), atol=2e-5, rtol=1e-5)


def test_it_is_a_denoiser_itself(cond, null):
    guidance = Guidance(cond, null, guidance_scale=2.0)
    assert isinstance(guidance, AnyDenoiser)
    assert guidance.schedule is cond.schedule


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"guidance_scale": float("nan")}, "guidance_scale must be a finite number, not nan"),
        ({"guidance_scale": 2.0, "interval": (0.7, 0.3)}, r"interval .* not \(0.7, 0.3\)"),
        ({"guidance_scale": 2.0, "rescale": 1.5}, "rescale .* not 1.5"),
        ({"guidance_scale": 2.0, "threshold": 1.0}, "threshold .* not 1.0"),
    ],
)
def test_impossible_settings_are_refused(cond, null, settings, said):
    with pytest.raises(UserError, match=said):
        Guidance(cond, null, **settings)


def test_guidance_needs_a_null(cond):
    with pytest.raises(ValueError, match="either null or doubled"):
        Guidance(cond, guidance_scale=2.0)
