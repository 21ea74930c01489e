from __future__ import annotations

import pytest
import torch

from diffusion_art.diffusion.samplers import by_name
from diffusion_art.diffusion.samplers.table import SPACINGS
from diffusion_art.diffusion.schedules import Flow
from diffusion_art.diffusion.time_search import error_of, fine_grid, fine_solution, search_times
from diffusion_art.errors import UserError
from tests.diffusion.shelf import SCHEDULES, GaussianDenoiser

SEARCHABLE = ["ddim", "euler", "dpmpp_2m", "unipc"]
X_T = torch.linspace(-2.5, 2.5, 24, dtype=torch.float64).reshape(2, 3, 2, 2)


@pytest.mark.parametrize("sampler", SEARCHABLE)
def test_the_searched_grid_beats_every_common_one(sampler):
    """For Gaussian data, where the exact end is known, and on pixels that the search has not seen."""
    denoiser = GaussianDenoiser(Flow(), mean=0.2, std=0.1)
    times = search_times(denoiser, X_T, sampler=by_name(sampler), num_steps=4, fine_steps=24)
    assert len(times) == 5
    fresh = X_T * 0.9 + 0.03
    exact = denoiser.transport(fresh)
    common = [by_name(sampler, num_steps=4, spacing=spacing) for spacing in SPACINGS]
    errors = [error_of(grid, denoiser, fresh, exact=exact) for grid in common]
    assert error_of(by_name(sampler, times=times), denoiser, fresh, exact=exact) < 0.7 * min(errors)


def test_one_step_and_all_steps_leave_no_choice():
    denoiser = GaussianDenoiser(Flow())
    assert search_times(denoiser, X_T, sampler=by_name("euler"), num_steps=1, fine_steps=8) == [1.0, 0.0]
    fine = fine_grid(Flow(), 8).tolist()
    assert search_times(denoiser, X_T, sampler=by_name("unipc"), num_steps=len(fine) - 1, fine_steps=8) == fine


def test_it_asks_the_network_as_often_as_it_says():
    denoiser, steps = GaussianDenoiser(Flow()), []
    end = len(fine_grid(Flow(), 16)) - 1
    search_times(denoiser, X_T, sampler=by_name("euler"), num_steps=3, fine_steps=16, on_step=steps.append)
    assert steps == [0, 1, 2]
    assert denoiser.calls <= 3 * end + 2 * end  # the search, and the fine solution by Heun


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_fine_solution_is_the_exact_one(schedule):
    denoiser = GaussianDenoiser(SCHEDULES[schedule])
    times = fine_grid(SCHEDULES[schedule], 64)
    assert (times[0], times[-1]) == (1, 0)
    assert times.diff().max() <= -0.9e-3
    fine = fine_solution(denoiser, X_T, times=times)
    assert len(fine) == len(times)
    torch.testing.assert_close(fine[-1], denoiser.transport(X_T), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampler": by_name("heun"), "num_steps": 2}, "not for heun"),
        ({"sampler": by_name("ddim", eta=0.5), "num_steps": 2}, "not for ddim"),
        ({"sampler": by_name("stochastic_heun"), "num_steps": 2}, "not for stochastic_heun"),
        ({"sampler": by_name("euler"), "num_steps": 99}, "num_steps=99 must lie between 1 and"),
    ],
)
def test_impossible_searches_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        search_times(GaussianDenoiser(Flow()), X_T, fine_steps=8, **settings)
