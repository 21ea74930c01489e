from __future__ import annotations

import math
from dataclasses import astuple
from itertools import product

import pytest
import torch

from diffusion_art.config import build
from diffusion_art.diffusion.denoiser import Denoiser
from diffusion_art.diffusion.denoiser import Flow as FlowPrediction
from diffusion_art.diffusion.samplers import SAMPLERS, NoiseSource, Sampler, Tabular, by_name
from diffusion_art.diffusion.samplers.ddim import DDIM, Ancestral
from diffusion_art.diffusion.samplers.euler import Euler, Heun
from diffusion_art.diffusion.samplers.stochastic_heun import StochasticHeun
from diffusion_art.diffusion.samplers.table import CLOSEST, SPACINGS, time_grid
from diffusion_art.diffusion.schedules import Flow
from diffusion_art.errors import UserError
from tests.diffusion.shelf import SCHEDULES, GaussianDenoiser, GaussianStudent, WavyNetwork, shelf

# every sampler of the shelf, and DDIM with noise: name -> settings
KINDS = {name: {"name": name} for name in SAMPLERS} | {"ddim_half": {"name": "ddim", "eta": 0.5}}
KINDS["stochastic_heun"] |= {"s_noise": 1.0}  # more than that is for networks, whose x_0_hat is too smooth
TABLES = [kind for kind in KINDS if kind != "stochastic_heun"]
OF_MEANS = [kind for kind in KINDS if kind != "consistency"]  # whose denoiser is E[x_0 | x_t]
DETERMINISTIC = ["ddim", "euler", "heun", "dpmpp_2m", "unipc"]
SECOND_ORDER = ["heun", "dpmpp_2m", "unipc"]  # at least
# how often the error shrinks at twice the steps, 2^order, and from how many steps that is measured
SHRINKS = {"ddim": (64, 2.0, 0.25), "euler": (64, 2.0, 0.25), "heun": (64, 4.1, 0.25), "dpmpp_2m": (64, 4.1, 0.25)}
SHRINKS["unipc"] = (32, 8.5, 0.8)


def moments(sampler: Sampler, denoiser: GaussianDenoiser) -> tuple[float, float]:
    """Mean and standard deviation of the pictures, exactly, without drawing any.

    For Gaussian data a sampler is an affine map of x_T and of each step's fresh noise, all independent unit
    normals. So it is run on zeros for the mean, and on a unit vector of each of them for its coefficient.
    """
    sources = 1 + sampler.num_steps  # x_T, then the noise of each step
    rows = torch.cat([torch.zeros(1, sources), torch.eye(sources)]).double()[..., None, None, None]
    end = sampler.sample(denoiser, rows[:, 0], noise=lambda step: rows[:, 1 + step]).flatten()
    return end[0].item(), (end[1:] - end[0]).square().sum().sqrt().item()


@pytest.mark.parametrize(
    ("schedule", "spacing"),
    [
        pytest.param(schedule, "uniform", marks=[] if schedule in ("flow", "cosine") else pytest.mark.slow)
        for schedule in SCHEDULES
    ]
    + [(schedule, spacing) for schedule in ("linear_beta", "flow") for spacing in ("log_snr", "karras")],
)
@pytest.mark.parametrize("kind", OF_MEANS)
def test_gaussian_data_comes_back_with_its_mean_and_spread(kind, schedule, spacing):
    sampler = by_name(**KINDS[kind], num_steps=200, spacing=spacing)
    mean, std = moments(sampler, GaussianDenoiser(SCHEDULES[schedule], mean=0.3, std=0.5))
    assert mean == pytest.approx(0.3, abs=0.002)
    assert std == pytest.approx(0.5, abs=0.002 if kind in SECOND_ORDER else 0.02)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_consistency_sampling_of_a_perfect_student_is_exact_in_any_number_of_steps(num_steps, schedule):
    student = GaussianStudent(SCHEDULES[schedule], mean=0.3, std=0.5)
    mean, std = moments(by_name("consistency", num_steps=num_steps), student)
    # not quite, where some signal is left at t = 1 and sampling starts from none
    slack = 1e-6 if student.schedule.zero_terminal_snr else 0.002
    assert (mean, std) == (pytest.approx(0.3, abs=slack), pytest.approx(0.5, abs=slack))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", DETERMINISTIC)
def test_each_pixel_ends_where_the_exact_ode_takes_it(kind, schedule):
    """And the error falls by the sampler's order: twice the steps, half, a quarter or an eighth of the error."""
    denoiser = GaussianDenoiser(SCHEDULES[schedule])
    x_T = torch.linspace(-3, 3, 25, dtype=torch.float64).reshape(25, 1, 1, 1)
    num_steps, shrinks, within = SHRINKS[kind]
    errors = [
        (by_name(kind, num_steps=n, spacing="log_snr").sample(denoiser, x_T) - denoiser.transport(x_T))
        .abs()
        .max()
        .item()
        for n in (num_steps, 2 * num_steps)
    ]
    assert errors[1] < (0.001 if kind in SECOND_ORDER else 0.04)
    assert errors[0] / errors[1] == pytest.approx(shrinks, abs=within)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_painting_is_found_exactly_in_any_number_of_steps(kind, schedule):
    """Data that is one picture: x_0_hat is always that picture, and float32 is enough to end on it."""
    picture = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4).expand(2, 3, 4, 4)

    class OnePicture:
        def __init__(self, schedule):
            self.schedule = schedule

        def __call__(self, x_t, t):
            assert torch.isfinite(x_t).all()
            return picture

    noise = NoiseSource([1, 2], (3, 4, 4))
    for num_steps, spacing in product([1, 2, 3, 30], SPACINGS):
        sampler = by_name(**KINDS[kind], num_steps=num_steps, spacing=spacing)
        end = sampler.sample(OnePicture(SCHEDULES[schedule]), noise.x_T(), noise=noise)
        assert end.dtype == torch.float32
        torch.testing.assert_close(end, picture, atol=1e-5, rtol=0)


def wavy(schedule) -> Denoiser:
    """A denoiser that is no formula: the answer of a small random network, predicting flow."""
    return Denoiser(WavyNetwork(dtype=torch.float64), schedule=schedule, prediction=FlowPrediction(), clip=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_two_derivations_agree(schedule):
    """Euler in straight coordinates is DDIM without noise; the DDPM posterior is DDIM with eta = 1."""
    denoiser, source = wavy(SCHEDULES[schedule]), NoiseSource([1, 2], (3, 8, 8))
    x_T, times = source.x_T().double(), time_grid(SCHEDULES[schedule], 12, spacing="karras")
    torch.testing.assert_close(Euler().sample(denoiser, x_T, times=times), DDIM().sample(denoiser, x_T, times=times))
    torch.testing.assert_close(
        Ancestral().sample(denoiser, x_T, times=times, noise=source),
        DDIM(eta=1.0).sample(denoiser, x_T, times=times, noise=source),
    )
    torch.testing.assert_close(
        StochasticHeun(s_churn=0.0).sample(denoiser, x_T, times=times), Heun().sample(denoiser, x_T, times=times)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_does_not_depend_on_its_batch(kind):
    def paint(seeds):
        noise = NoiseSource(seeds, (3, 8, 8))
        denoiser = Denoiser(WavyNetwork(), schedule=Flow(), prediction=FlowPrediction())
        return by_name(**KINDS[kind], num_steps=8).sample(denoiser, noise.x_T(), noise=noise)

    together = paint([10, 11, 12, 13, 14])
    torch.testing.assert_close(paint([13])[0], together[3], atol=1e-6, rtol=0)
    assert (together[3] - together[2]).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_callback_sees_every_step(kind):
    schedule, seen = Flow(), []
    denoiser, noise = GaussianDenoiser(schedule), NoiseSource([0], (1, 2, 2))
    x_T = noise.x_T()
    sampler = by_name(**KINDS[kind], num_steps=6)
    end = sampler.sample(denoiser, x_T, noise=noise, callback=lambda *step: seen.append(step))
    assert [step for step, *_ in seen] == list(range(6))
    if kind in TABLES:
        assert [t for _, t, *_ in seen] == time_grid(schedule, 6)[:-1].tolist()
    assert torch.equal(seen[0][2], x_T)
    for _, t, x_t, x_0_hat in seen:
        torch.testing.assert_close(denoiser(x_t, torch.full((1,), t)), x_0_hat)
    torch.testing.assert_close(seen[-1][3], end)  # the last step ends on its x_0_hat


@pytest.mark.parametrize(
    ("kind", "calls"),
    [("ddim", 10), ("euler", 10), ("dpmpp_2m", 10), ("unipc", 10), ("heun", 19), ("stochastic_heun", 19)],
)
def test_network_calls(kind, calls):
    denoiser, sampler = GaussianDenoiser(Flow()), by_name(kind, num_steps=10)
    sampler.sample(denoiser, torch.zeros(1, 1, 2, 2), noise=NoiseSource([0], (1, 2, 2)))
    assert denoiser.calls == sampler.num_calls(Flow()) == calls


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_keeps_no_graph(kind):
    weight = torch.ones((), requires_grad=True)
    exact = GaussianDenoiser(Flow())

    class Trainable:
        schedule = Flow()

        def __call__(self, x_t, t):
            return weight * exact(x_t, t)

    noise = NoiseSource([0], (1, 2, 2))
    assert not by_name(**KINDS[kind], num_steps=3).sample(Trainable(), noise.x_T(), noise=noise).requires_grad


@pytest.mark.parametrize("kind", OF_MEANS)
def test_sampling_can_start_and_stop_half_way(kind):
    """From the exact x_t at t = 0.6 down to t = 0.2, the spread is that of the exact x_t there."""
    denoiser = GaussianDenoiser(Flow(), mean=0.0, std=0.5)
    sources, spread = 201, math.hypot(0.4 * 0.5, 0.6)
    rows = torch.eye(sources, dtype=torch.float64)[..., None, None, None]
    end = by_name(**KINDS[kind]).sample(
        denoiser,
        rows[:, 0] * spread,
        times=torch.linspace(0.6, 0.2, sources),
        noise=lambda step: rows[:, 1 + step],
    )
    assert end.square().sum().sqrt().item() == pytest.approx(math.hypot(0.8 * 0.5, 0.2), rel=0.01)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_time_grids_fall_from_1_to_0(schedule, spacing):
    for num_steps in (1, 2, 20, 1000):
        times = time_grid(SCHEDULES[schedule], num_steps, spacing=spacing)
        assert times.shape == (num_steps + 1,)
        assert (times[0], times[-1]) == (1, 0)
        assert (times.diff() < 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_spacings_are_even_in_what_they_name(schedule):
    schedule, inner = SCHEDULES[schedule], slice(1, -1)  # the ends may be infinite
    uniform, log_snr, karras = (time_grid(schedule, 20, spacing=spacing) for spacing in SPACINGS)
    ratio = torch.exp(-schedule.log_snr(karras[inner]) / 2)
    for even in (uniform, schedule.log_snr(log_snr[inner]), ratio ** (1 / 7)):
        steps = even.diff()
        torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-5, atol=0)
    assert ratio[-1].item() == pytest.approx(0.002)


def test_every_yaml_is_a_sampler_that_describes_itself():
    built = shelf("sampler")
    assert {sampler.name for sampler in built.values()} == set(SAMPLERS)
    for name, sampler in built.items():
        own = {"ddim": {"eta": 0.0}, "stochastic_heun": {"s_churn": 40, "s_tmin": 0.05, "s_tmax": 50, "s_noise": 1.003}}
        spacing = "karras" if name == "stochastic_heun" else "uniform"
        told = {"name": name, "num_steps": sampler.num_steps, "spacing": spacing, **own.get(name, {})}
        assert sampler.describe() == told
        assert by_name(**told) == sampler


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "dimm"}, "no sampler named 'dimm'; choose one of consistency, ddim"),
        ({"name": "ddim", "num_steps": 0}, "num_steps must be a whole number from 1 on, not 0"),
        ({"name": "ddim", "spacing": "cubic"}, "no time spacing named 'cubic'; choose one of uniform"),
        ({"name": "ddim", "eta": 1.5}, r"eta must lie in \[0, 1\], not 1.5"),
        ({"name": "heun", "eta": 0.5}, "sampler heun has no eta"),
        ({"name": "stochastic_heun", "s_churn": -1.0}, "s_churn=-1.0 and s_noise=1.003 must be 0 or more"),
        ({"name": "stochastic_heun", "s_tmin": 60.0}, r"s_tmin=60.0 must lie between 0 and s_tmax=50.0"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        by_name(**settings)


@pytest.mark.parametrize("kind", KINDS)
def test_a_grid_given_as_numbers_is_the_grid(kind):
    """Also as a list, as configs hold it; the number of steps is the grid's, and samplers stay usable as keys."""
    spaced = by_name(**KINDS[kind], num_steps=6, spacing="karras")
    listed = by_name(**KINDS[kind], num_steps=50, times=time_grid(Flow(), 6, spacing="karras").tolist())
    assert (listed.num_steps, len({listed, spaced})) == (6, 2)
    assert torch.equal(listed.grid(Flow()), spaced.grid(Flow()))
    if isinstance(listed, Tabular):
        assert listed.calls(Flow()) == spaced.calls(Flow())
    assert listed.describe()["times"] == list(listed.times)
    assert by_name(**listed.describe()) == listed
    assert listed.in_steps(6) is listed
    assert listed.in_steps(9) == by_name(**KINDS[kind], num_steps=9)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([], r"from \[\] to \[\]"),
        ([1.0], r"from \[1.0\] to \[1.0\]"),
        ([1, 0.5], r"to \[0.5\]"),
        ([0.9, 0], r"from \[0.9\]"),
        ([1, 0.5, 0.5, 0], "after 0.5 comes 0.5"),
        ([1, 0.2, 0.4, 0], "after 0.2 comes 0.4"),
        ([1, float("nan"), 0], "after 1.0 comes nan"),
        ([1, 0.5, 0.5 - 1e-7, 0], "after 0.5 comes 0.4999999"),
    ],
)
def test_a_list_that_is_no_grid_is_refused(times, said):
    with pytest.raises(UserError, match=f"must fall from 1 to 0.*; .*{said}"):
        Euler(times=times)


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_finest_steps_that_a_list_may_have_give_finite_numbers(kind, schedule):
    gap = 1.01 * CLOSEST
    times = [1, *(t for middle in (1 - 2 * gap, 0.5, 0.01, 2 * gap) for t in (middle + gap, middle, middle - gap)), 0]
    calls = by_name(**KINDS[kind], times=times).calls(SCHEDULES[schedule])
    assert all(math.isfinite(number) for call in calls for number in astuple(call))


@pytest.mark.parametrize("times", [[1.0], [0.0, 1.0], [1.0, 0.5, 0.5, 0.0], [1.2, 0.0], [0.5, -0.1]])
def test_a_grid_that_does_not_fall_is_refused(times):
    with pytest.raises(ValueError, match="must fall strictly"):
        DDIM().sample(GaussianDenoiser(Flow()), torch.zeros(1, 1, 2, 2), times=torch.tensor(times))


@pytest.mark.parametrize(
    "settings",
    [{"name": "ancestral"}, {"name": "consistency"}, {"name": "ddim", "eta": 0.5}, {"name": "stochastic_heun"}],
)
def test_a_stochastic_sampler_asks_for_noise(settings):
    with pytest.raises(ValueError, match="give it noise"):
        by_name(**settings).sample(GaussianDenoiser(Flow()), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("schedule", ["flow", "cosine", "linear_beta"])
def test_churn_is_the_papers_algorithm(schedule):
    """Karras et al. 2022, Algorithm 2: in x / alpha, at noise levels s = sigma / alpha, but for Heun's mean of slopes.

    That is taken in z = (x / alpha) / (1 + s) over u = s / (1 + s), as `Heun` does, to be finite at s = infinity.
    """
    schedule, sampler = SCHEDULES[schedule], StochasticHeun(s_churn=6.0, s_tmin=0.1, s_tmax=20.0, s_noise=1.01)
    denoiser, noise = wavy(schedule), NoiseSource([1, 2], (3, 8, 8))
    times = schedule.t_of_log_snr(-2 * torch.tensor([60.0, 10.0, 3.0, 1.0, 0.4, 0.06, 0.01]).double().log())
    alpha, sigma = schedule.alpha_sigma(times)
    levels, x_T = (sigma / alpha).tolist(), noise.x_T().double()

    def clean(x, s):
        t = schedule.t_of_log_snr(-2 * torch.tensor([s, s]).double().log())
        return denoiser(x * schedule.alpha_sigma(t)[0][:, None, None, None], t)

    x = x_T / alpha[0]
    for i in range(6):
        s, s_next = levels[i], levels[i + 1]
        gamma = min(6.0 / 6, math.sqrt(2) - 1) if 0.1 <= s <= 20.0 else 0.0
        s_hat = s + gamma * s
        x_hat = x + math.sqrt(s_hat**2 - s**2) * 1.01 * noise(i).double()
        z, u, u_next = x_hat / (1 + s_hat), s_hat / (1 + s_hat), s_next / (1 + s_next)
        d = (z - clean(x_hat, s_hat)) / u
        z_guess = z + (u_next - u) * d
        d_next = (z_guess - clean(z_guess * (1 + s_next), s_next)) / u_next
        x = (z + (u_next - u) * (d + d_next) / 2) * (1 + s_next)
    end = sampler.sample(denoiser, x_T, times=times, noise=noise)
    torch.testing.assert_close(end / alpha[-1], x, atol=1e-6, rtol=1e-6)


def test_configs_and_pictures_of_before_name_the_same_samplers():
    """`_target_` of checkpoints written when a sampler was a name, and the metadata of their pictures."""
    old = {"_target_": "diffusion_art.diffusion.samplers.Sampler", "num_steps": 7, "spacing": "log_snr", "times": None}
    for name in ("ddim", "ancestral", "euler", "heun", "dpmpp_2m", "unipc", "consistency"):
        built = build(old | {"name": name})
        assert type(built) is SAMPLERS[name]
        assert (built.num_steps, built.spacing) == (7, "log_snr")
        assert by_name(name, num_steps=7, spacing="log_snr", eta=0.0) == built
    assert build(old | {"name": "ddim", "eta": 0.2}) == DDIM(num_steps=7, spacing="log_snr", eta=0.2)
    with pytest.raises(UserError, match="sampler euler has no eta"):
        build(old | {"name": "euler", "eta": 0.2})
