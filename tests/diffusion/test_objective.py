from __future__ import annotations

import math

import pytest
import torch

from diffusion_art.diffusion.denoiser import X0, Epsilon, Flow, V
from diffusion_art.diffusion.objective import (
    FlowLoss,
    LogitNormal,
    LogNormal,
    MinSNR,
    NoWeighting,
    Objective,
    Sigmoid,
    Stops,
    Stratified,
    Uniform,
    resolution_shift,
)
from diffusion_art.diffusion.samplers.table import time_grid
from diffusion_art.diffusion.schedules import CosineSchedule
from diffusion_art.diffusion.schedules import Flow as FlowSchedule
from diffusion_art.errors import UserError
from diffusion_art.experiments.edm import Edm, EdmWeighting
from diffusion_art.experiments.soft_min_snr import SoftMinSNR
from tests.diffusion.shelf import PAIRS, PREDICTIONS, SCHEDULES, WavyNetwork, eps_of_x0, shelf

OBJECTIVES = {name: built for name, built in shelf("objective").items() if isinstance(built, Objective)}
B = 65
T = torch.linspace(0, 1, B + 2, dtype=torch.float64)[1:-1]
SNR = CosineSchedule().log_snr(T).exp()


def draw(dtype=torch.float64):
    return torch.randn(3, B, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)


def loss_of(weighting, *, schedule, prediction, x_0, eps, x_0_hat, t=T):
    """The objective's loss for a network whose output stands for x_0_hat."""
    alpha, sigma = (scale[:, None, None, None] for scale in schedule.alpha_sigma(t))

    def network(shown, clock):
        return prediction.target(x_0_hat, eps_of_x0(x_0_hat, alpha * x_0 + sigma * eps, alpha, sigma), alpha, sigma)

    objective = Objective(times=Stratified(), weighting=weighting)
    return objective(network, schedule=schedule, prediction=prediction, x_0=x_0, eps=eps, t=t)


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
@pytest.mark.parametrize(
    "weighting",
    [MinSNR(), Sigmoid(bias=-1.5), SoftMinSNR(), SoftMinSNR(gamma=1.0), EdmWeighting(sigma_data=0.7), FlowLoss()],
    ids=lambda weighting: type(weighting).__name__,
)
def test_snr_weightings_agree_across_predictions_as_an_x0_loss(weighting, schedule, prediction):
    """The same x_0_hat costs the same whatever the network outputs: weight(SNR) times the x_0 error."""
    schedule, prediction = SCHEDULES[schedule], PREDICTIONS[prediction]
    x_0, eps, x_0_hat = draw()
    loss = loss_of(weighting, schedule=schedule, prediction=prediction, x_0=x_0, eps=eps, x_0_hat=x_0_hat)
    snr = schedule.log_snr(T).exp()
    if isinstance(weighting, MinSNR):
        weight = snr.clamp(max=weighting.gamma)
    elif isinstance(weighting, SoftMinSNR):
        weight = 1 / (1 / snr + 1 / weighting.gamma)
    elif isinstance(weighting, EdmWeighting):
        weight = snr + 1 / 0.7**2
    elif isinstance(weighting, FlowLoss):
        weight = 1 / (1 / (1 + snr.sqrt())).clamp(min=0.05) ** 2
    else:
        weight = snr / (1 + snr * math.exp(-weighting.bias)) * -schedule.log_snr_slope(T)
    torch.testing.assert_close(loss, weight * (x_0_hat - x_0).square().mean((1, 2, 3)), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    ("prediction", "multiplier"),
    [
        (X0(), SNR.clamp(max=5)),
        (Epsilon(), SNR.clamp(max=5) / SNR),
        (V(), SNR.clamp(max=5) / (SNR + 1)),  # not min(SNR, gamma) / SNR, which is epsilon's
    ],
)
def test_min_snr_multiplies_by_the_published_weight(prediction, multiplier):
    """Hang et al. 2023, section 3.4, for a variance-preserving schedule."""
    weight = MinSNR(gamma=5.0)(T, schedule=CosineSchedule(), prediction=prediction)
    torch.testing.assert_close(weight, multiplier)


def test_min_snr_on_the_flow_path():
    """x_0 = x_t - t out there, so an x_0 error is t times a flow error."""
    weight = MinSNR(gamma=5.0)(T, schedule=FlowSchedule(), prediction=Flow())
    snr = ((1 - T) / T) ** 2
    torch.testing.assert_close(weight, snr.clamp(max=5) * T**2)


def test_soft_min_snr_on_edms_output_is_k_diffusions():
    """(s sigma_data)^2 / (s^2 + sigma_data^2)^2 for gamma = 1 / sigma_data^2, s the noise level."""
    schedule, s, sigma_data = FlowSchedule(), T / (1 - T), 0.5
    weight = SoftMinSNR(gamma=4.0)(T, schedule=schedule, prediction=Edm(sigma_data=sigma_data))
    torch.testing.assert_close(weight, (s * sigma_data) ** 2 / (s**2 + sigma_data**2) ** 2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_edms_lambda_is_weight_1_on_edms_output(schedule):
    weight = EdmWeighting(sigma_data=0.7)(T, schedule=SCHEDULES[schedule], prediction=Edm(sigma_data=0.7))
    torch.testing.assert_close(weight, torch.ones_like(T))


def test_an_image_network_under_the_flow_loss_costs_what_its_velocity_costs():
    """JiT: |v - (x_t - x_0_hat) / u|^2 with u held at 0.05."""
    x_0, eps, x_0_hat = draw()
    schedule, t = FlowSchedule(), T[:, None, None, None]
    loss = loss_of(FlowLoss(), schedule=schedule, prediction=X0(), x_0=x_0, eps=eps, x_0_hat=x_0_hat)
    x_t, held = (1 - t) * x_0 + t * eps, t.clamp(min=0.05)
    by_velocity = ((x_t - x_0) / held - (x_t - x_0_hat) / held).square().mean((1, 2, 3))
    torch.testing.assert_close(loss, by_velocity, check_dtype=False, rtol=1e-5, atol=1e-6)
    plain = NoWeighting()(T, schedule=schedule, prediction=Flow())
    assert torch.equal(FlowLoss(floor=1e-6)(T, schedule=schedule, prediction=Flow()).round(decimals=9), plain)


@pytest.mark.parametrize("bias", [-2.0, 0.0, 1.0])
def test_sigmoid_weights_the_epsilon_error_per_unit_of_log_snr(bias):
    schedule = CosineSchedule()
    weight = Sigmoid(bias=bias)(T, schedule=schedule, prediction=Epsilon())
    expected = torch.sigmoid(bias - schedule.log_snr(T)) * 2 * math.pi / torch.sin(math.pi * T)
    torch.testing.assert_close(weight, expected)


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_finite_at_every_time_it_draws(objective, schedule, prediction):
    objective = OBJECTIVES[objective]
    drawn = objective.times(B - 2, generator=torch.Generator().manual_seed(0), schedule=SCHEDULES[schedule])
    t = torch.cat([torch.tensor([1e-5, 1 - 1e-5]), drawn])
    x_0, eps, _ = draw(torch.float32)
    loss = objective(
        WavyNetwork(),
        schedule=SCHEDULES[schedule],
        prediction=PREDICTIONS[prediction],
        x_0=x_0,
        eps=eps,
        t=t,
    )
    assert loss.shape == (B,)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    assert (loss >= 0).all()
    assert loss.sum() > 0


@pytest.mark.parametrize(("schedule", "prediction"), PAIRS)
@pytest.mark.parametrize("weighting", [NoWeighting(), MinSNR(), Sigmoid()])
def test_the_truth_costs_nothing(weighting, schedule, prediction):
    x_0, eps, _ = draw()
    kwargs = {"schedule": SCHEDULES[schedule], "prediction": PREDICTIONS[prediction]}
    loss = loss_of(weighting, **kwargs, x_0=x_0, eps=eps, x_0_hat=x_0)
    torch.testing.assert_close(loss, torch.zeros_like(loss), atol=1e-7, rtol=0)


def test_no_weighting_is_the_mean_squared_error_of_the_output():
    x_0, eps, noise_hat = draw()
    objective = Objective(times=Stratified(), weighting=NoWeighting())
    loss = objective(lambda x_t, t: noise_hat, schedule=CosineSchedule(), prediction=Epsilon(), x_0=x_0, eps=eps, t=T)
    torch.testing.assert_close(loss, (noise_hat - eps).square().mean((1, 2, 3)), check_dtype=False)


def test_the_network_sees_x_t_at_its_own_time():
    x_0, eps, _ = draw()
    seen = {}

    def network(x_t, t):
        seen.update(x_t=x_t, t=t)
        return x_t

    objective = Objective(times=Stratified(), weighting=NoWeighting())
    objective(network, schedule=FlowSchedule(), prediction=Flow(), x_0=x_0, eps=eps, t=T)
    t = T[:, None, None, None]
    assert torch.equal(seen["t"], T)
    torch.testing.assert_close(seen["x_t"], (1 - t) * x_0 + t * eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_pictures_of_16_bits_are_noised_at_the_levels_of_float32(schedule, dtype):
    """diffusers 0.42.1 rounds the schedule with them (findings/diffusers_noise_bf16.sh)."""
    t = torch.linspace(0.001, 0.999, 999)
    seen = {}

    def network(x_t, t):
        seen.update(x_t=x_t)
        return x_t

    nothing, noise = torch.zeros(999, 1, 1, 1, dtype=dtype), torch.ones(999, 1, 1, 1, dtype=dtype)
    objective = Objective(times=Stratified(), weighting=NoWeighting())
    objective(network, schedule=SCHEDULES[schedule], prediction=V(), x_0=nothing, eps=noise, t=t)
    _, sigma = SCHEDULES[schedule].alpha_sigma(t)
    assert torch.equal(seen["x_t"].flatten(), sigma)


def test_a_bfloat16_output_is_compared_in_float32():
    x_0, eps, _ = draw(torch.float32)
    objective = Objective(times=Stratified(), weighting=NoWeighting())
    out = (eps - x_0).bfloat16()
    loss = objective(lambda x_t, t: out, schedule=FlowSchedule(), prediction=Flow(), x_0=x_0, eps=eps, t=T.float())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, (out.float() - (eps - x_0)).square().mean((1, 2, 3)))
    assert loss.min() > 0  # a difference taken in bfloat16 would be exactly 0


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: MinSNR(gamma=0.0), "gamma must be positive, not 0"),
        (lambda: SoftMinSNR(gamma=-1.0), "gamma must be positive, not -1"),
        (lambda: EdmWeighting(sigma_data=0.0), "sigma_data must be a positive number, not 0"),
        (lambda: FlowLoss(floor=0.0), r"must lie in \(0, 1\), not 0"),
    ],
)
def test_impossible_settings_are_refused(build, said):
    with pytest.raises(UserError, match=said):
        build()


# ---------------------------------------------------------------------- times


KINDS = {
    "uniform": Uniform(),
    "uniform_shifted": Uniform(shift=3.0),
    "stratified": Stratified(),
    "logit_normal": LogitNormal(),
    "stops": Stops(num_steps=4),
    "logit_normal_iid": LogitNormal(mean=-0.5, std=1.4, stratified=False, shift=2.0),
    "logit_normal_narrow": LogitNormal(std=0.01),
    "logit_normal_extreme": LogitNormal(mean=40.0),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 7, 4096])
def test_times_lie_strictly_inside(kind, count):
    t = KINDS[kind](count, generator=seeded())
    assert t.shape == (count,)
    assert t.dtype == torch.float32
    assert ((t > 0) & (t < 1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_decides(kind):
    times = KINDS[kind]
    torch.manual_seed(0)
    first = times(64, generator=seeded(3))
    torch.manual_seed(1)
    assert torch.equal(first, times(64, generator=seeded(3)))
    if kind != "logit_normal_extreme":
        assert not torch.equal(first, times(64, generator=seeded(4)))


def test_stratified_puts_one_time_in_each_slice():
    t = Stratified()(64, generator=seeded())
    assert torch.equal((t * 64).long().sort().values, torch.arange(64))
    assert not torch.equal(t, t.sort().values)  # no place in the batch is bound to a time


def test_each_place_of_a_stratified_batch_is_uniform():
    first = torch.stack([Stratified()(4, generator=seeded(seed))[0] for seed in range(2000)])
    assert first.mean().item() == pytest.approx(0.5, abs=0.02)
    assert first.std().item() == pytest.approx(12**-0.5, abs=0.02)


def test_stops_are_where_a_sampler_of_as_many_steps_calls_its_network():
    t = Stops(num_steps=4)(64, generator=seeded())
    torch.testing.assert_close(t.unique(), torch.tensor([0.25, 0.5, 0.75, 1.0]), atol=2e-5, rtol=0)
    assert [(t - stop).abs().lt(1e-4).sum().item() for stop in time_grid(FlowSchedule(), 4)[:-1]] == [16] * 4


@pytest.mark.parametrize("stratified", [False, True])
def test_logit_normal_has_its_mean_and_spread(stratified):
    logit = LogitNormal(mean=0.7, std=1.3, stratified=stratified)(40_000, generator=seeded()).logit()
    assert logit.mean().item() == pytest.approx(0.7, abs=0.03)
    assert logit.std().item() == pytest.approx(1.3, abs=0.03)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_log_normal_is_so_in_the_noise_level_under_every_schedule(schedule, stratified):
    schedule = SCHEDULES[schedule]
    t = LogNormal(mean=-1.2, std=1.2, stratified=stratified)(20_000, generator=seeded(), schedule=schedule)
    log_s = -schedule.log_snr(t.double()) / 2
    assert log_s.median().item() == pytest.approx(-1.2, abs=0.05)
    spread = log_s.quantile(0.8413) - log_s.median()  # the tails may lie beyond a schedule's own end
    assert spread.item() == pytest.approx(1.2, abs=0.05)


def test_log_normal_on_the_straight_path_is_logit_normal():
    settings = {"mean": -1.2, "std": 1.2, "stratified": True}
    by_noise = LogNormal(**settings)(256, generator=seeded(), schedule=FlowSchedule())
    torch.testing.assert_close(by_noise, LogitNormal(**settings)(256, generator=seeded()))
    with pytest.raises(ValueError, match="give them the schedule"):
        LogNormal()(4, generator=seeded())


@pytest.mark.parametrize("build", [Uniform, Stratified, LogitNormal])
def test_shifted_times_on_the_plain_path_are_plain_times_on_the_shifted_path(build):
    plain, shifted = build()(256, generator=seeded()), build(shift=3.0)(256, generator=seeded())
    torch.testing.assert_close(shifted, resolution_shift(plain, shift=3.0))
    torch.testing.assert_close(
        FlowSchedule().log_snr(shifted.double()), FlowSchedule(shift=3.0).log_snr(plain.double()), atol=1e-2, rtol=1e-3
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: Uniform(shift=-1.0),
        lambda: LogitNormal(std=0.0),
        lambda: LogNormal(std=-1.0),
        lambda: Stops(num_steps=0),
    ],
)
def test_impossible_times_are_refused(build):
    with pytest.raises(UserError, match=r"must be .*(positive|at least 1)"):
        build()
