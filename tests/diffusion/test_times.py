from __future__ import annotations

import pytest
import torch

from diffusion_art.diffusion.samplers.table import time_grid
from diffusion_art.diffusion.schedules import Flow
from diffusion_art.diffusion.times import LogitNormal, LogNormal, Stops, Stratified, Uniform, resolution_shift
from diffusion_art.errors import UserError
from tests.diffusion.shelf import SCHEDULES

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
    assert [(t - stop).abs().lt(1e-4).sum().item() for stop in time_grid(Flow(), 4)[:-1]] == [16] * 4


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
    by_noise = LogNormal(**settings)(256, generator=seeded(), schedule=Flow())
    torch.testing.assert_close(by_noise, LogitNormal(**settings)(256, generator=seeded()))
    with pytest.raises(ValueError, match="give them the schedule"):
        LogNormal()(4, generator=seeded())


@pytest.mark.parametrize("build", [Uniform, Stratified, LogitNormal])
def test_shifted_times_on_the_plain_path_are_plain_times_on_the_shifted_path(build):
    plain, shifted = build()(256, generator=seeded()), build(shift=3.0)(256, generator=seeded())
    torch.testing.assert_close(shifted, resolution_shift(plain, shift=3.0))
    torch.testing.assert_close(
        Flow().log_snr(shifted.double()), Flow(shift=3.0).log_snr(plain.double()), atol=1e-2, rtol=1e-3
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
def test_impossible_settings_are_refused(build):
    with pytest.raises(UserError, match=r"must be .*(positive|at least 1)"):
        build()
