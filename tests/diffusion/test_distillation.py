from __future__ import annotations

import pytest
import torch

from diffusion_art.diffusion.denoiser import X0, Denoiser
from diffusion_art.diffusion.denoiser import Flow as FlowPrediction
from diffusion_art.diffusion.distillation import Distillation, lead
from diffusion_art.diffusion.objective import Stops
from diffusion_art.diffusion.samplers.consistency import Consistency
from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M
from diffusion_art.diffusion.schedules import Flow
from diffusion_art.errors import UserError
from tests.diffusion.shelf import SCHEDULES, GaussianDenoiser, GaussianStudent, WavyNetwork

T = torch.tensor([1.0, 0.9, 0.6, 0.6, 0.3, 0.05], dtype=torch.float64)
HUBER = 1e-6  # so small that the loss is the root of the mean square


def noisy(rows: int = len(T)) -> torch.Tensor:
    return torch.randn(rows, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss_of(backbone, *, teacher, x_0=None, t=T, gap=1.0, steps=64, huber=HUBER):
    """The loss of a student that outputs x_0_hat, with x_0 = 0: x_t is sigma eps."""
    objective = Distillation(times=Stops(num_steps=4), gap=gap, teacher_steps=steps, huber=huber)
    eps = noisy(len(t))
    x_0 = torch.zeros_like(eps) if x_0 is None else x_0
    return objective(backbone, teacher=teacher, schedule=teacher.schedule, prediction=X0(), x_0=x_0, eps=eps, t=t)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_image_is_led_down_the_exact_ode_from_its_own_time(schedule, share):
    """And more steps leave less of the error; the first one, from no signal at all, is the worst."""
    exact = GaussianStudent(SCHEDULES[schedule])
    teacher, r = GaussianDenoiser(SCHEDULES[schedule]), T * share
    errors = []
    for num_steps in (32, 128):
        led = lead(teacher, noisy(), T, r, num_steps=num_steps)
        errors.append((led - exact.carry(noisy(), T, r)).abs().max().item())
    assert errors[1] < 0.05
    assert errors[0] / errors[1] > 2
    assert teacher.calls == 32 + 128


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_leading_all_from_noise_to_clean_is_the_sampler(schedule):
    denoiser = Denoiser(
        WavyNetwork(dtype=torch.float64), schedule=SCHEDULES[schedule], prediction=FlowPrediction(), clip=True
    )
    ones = torch.ones(3, dtype=torch.float64)
    expected = DPMSolverPP2M(num_steps=5).sample(denoiser, noisy(3))
    torch.testing.assert_close(lead(denoiser, noisy(3), ones, 0 * ones, num_steps=5), expected)


@pytest.mark.parametrize("gap", [1.0, 0.25])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_perfect_student_costs_nothing_and_the_mean_what_it_is_off_by(schedule, gap):
    teacher, student = GaussianDenoiser(SCHEDULES[schedule]), GaussianStudent(SCHEDULES[schedule])
    assert loss_of(student, teacher=teacher, gap=gap).max() < 0.01
    if gap == 1.0:
        x_t = noisy() * student.schedule.alpha_sigma(T)[1][:, None, None, None]
        off = (teacher(x_t, T) - student(x_t, T)).square().mean((1, 2, 3)).sqrt()
        torch.testing.assert_close(loss_of(teacher, teacher=teacher).double(), off, atol=0.01, rtol=0)


@pytest.mark.parametrize("gap", [1.0, 0.25])
def test_a_student_learns_to_paint_in_one_step_or_several(gap):
    """One gain and one shift for each stop, by gradient; from what they become, the spread of the pictures."""
    times = torch.arange(1, 5, dtype=torch.float64) / 4
    teacher = GaussianDenoiser(Flow(), mean=0.3, std=0.5)
    weights = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)

    def student(x_t, t):
        gain, shift = weights[:, (4 * t).round().long() - 1, None, None, None]
        return gain * x_t + shift

    t = times.repeat(16)
    x_0 = 0.3 + 0.5 * noisy(64).flip(0)
    optimizer = torch.optim.Adam([weights], lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(student, teacher=teacher, x_0=x_0, t=t, gap=gap, steps=int(16 * gap), huber=0.3).mean().backward()
        optimizer.step()
    x_T, student_denoiser = noisy(64), Denoiser(student, schedule=Flow(), prediction=X0())
    for num_steps in (1, 2, 4):
        source = torch.randn(8, *x_T.shape, generator=torch.Generator().manual_seed(1), dtype=x_T.dtype)
        painted = Consistency(num_steps=num_steps).sample(student_denoiser, x_T, noise=source.__getitem__)
        assert painted.mean().item() == pytest.approx(0.3, abs=0.03)
        assert painted.std().item() == pytest.approx(0.5, abs=0.03)


def test_the_answer_to_learn_is_no_path_for_gradients():
    """Of 2 x, taught to be x_r = 0: the gradient is that of the call at t alone."""
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    teacher = GaussianDenoiser(Flow(), mean=0.0, std=1.0)
    loss = loss_of(lambda x_t, t: weight * x_t, teacher=teacher, gap=0.25, t=T[2:4], huber=1e3)
    (slope,) = torch.autograd.grad(loss.sum(), weight)
    x_t = 0.6 * noisy(2)
    x_r = lead(teacher, x_t, T[2:4], T[2:4] - 0.25, num_steps=64)
    expected = ((weight * x_t - weight.detach() * x_r) * x_t).mean((1, 2, 3)).sum() / 1e3
    torch.testing.assert_close(slope.double(), expected.detach().double(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gap": 0.0}, "gap=0.0 must lie in"),
        ({"gap": 1.5}, "gap=1.5 must lie in"),
        ({"teacher_steps": 0}, "teacher_steps=0 must be at least 1"),
        ({"huber": 0.0}, "huber=0.0 must be positive"),
    ],
)
def test_impossible_settings_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        Distillation(times=Stops(num_steps=4), **settings)
