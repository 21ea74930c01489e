"""A second opinion: the same network, seeds and timesteps through diffusers' own schedulers.

Their integer timestep k of N is our t = (k + 1) / N, so our samplers get their grids as explicit times.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from diffusion_art.diffusion.denoiser import X0, Denoiser, Epsilon, V
from diffusion_art.diffusion.denoiser import Flow as FlowPrediction
from diffusion_art.diffusion.samplers import NoiseSource
from diffusion_art.diffusion.samplers.ddim import DDIM, Ancestral
from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M, UniPC
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.diffusion.samplers.table import time_grid
from diffusion_art.diffusion.schedules import DiscreteSchedule, Flow, LinearBeta, SquaredCosCapV2
from diffusion_art.experiments.edm import Edm
from tests.diffusion.shelf import WavyNetwork

# diffusers asks numpy for the values of a tensor in a way that numpy 2 warns about
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

N = 1000
PREDICTIONS = {"epsilon": Epsilon(), "v_prediction": V(), "sample": X0(), "flow_prediction": FlowPrediction()}
SCHEDULES = {"squaredcos_cap_v2": SquaredCosCapV2, "linear": LinearBeta}
SEEDS = [3, 1, 4]
SHAPE = (3, 8, 8)


def times_of(timesteps: torch.Tensor) -> torch.Tensor:
    """Their timesteps as our times, with the clean end."""
    return torch.cat([(timesteps.double() + 1) / N, torch.zeros(1, dtype=torch.float64)])


def generators() -> list[torch.Generator]:
    """Their per-image generators, which have already given x_T."""
    drawn = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    for generator in drawn:
        torch.randn(SHAPE, generator=generator)
    return drawn


def denoiser(schedule, prediction: str, dtype=torch.float32) -> Denoiser:
    return Denoiser(WavyNetwork(dtype=dtype), schedule=schedule, prediction=PREDICTIONS[prediction])


def call(network: WavyNetwork, x_t: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """The network as their pipelines call it: one timestep for the batch."""
    return network(x_t, ((k.to(x_t.dtype) + 1) / N).expand(len(x_t)))


CASES = [
    (beta_schedule, prediction, zero_snr)
    for beta_schedule in SCHEDULES
    for prediction, zero_snr in [
        ("epsilon", False),
        ("v_prediction", False),
        ("sample", False),
        ("v_prediction", True),
        ("sample", True),
    ]
]


@pytest.mark.parametrize("eta", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize(("beta_schedule", "prediction", "zero_snr"), CASES)
def test_ddim(beta_schedule, prediction, zero_snr, spacing, eta):
    """In float64, on one table of alphas, so that nothing but the step itself is compared."""
    ours = SCHEDULES[beta_schedule](zero_terminal_snr=zero_snr)
    theirs = DDIMScheduler(
        beta_schedule=beta_schedule,
        prediction_type=prediction,
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing=spacing,
        clip_sample=False,
    )
    theirs.set_timesteps(20)
    alpha, _ = ours.alpha_sigma(torch.arange(1, N + 1, dtype=torch.float64) / N)
    theirs.alphas_cumprod = alpha**2

    noise = NoiseSource(SEEDS, SHAPE)
    x_t = noise.x_T().double()
    for i, k in enumerate(theirs.timesteps):
        out = call(WavyNetwork(dtype=torch.float64), x_t, k)
        x_t = theirs.step(out, k, x_t, eta=eta, variance_noise=noise(i).double()).prev_sample

    end = DDIM(eta=eta).sample(
        denoiser(ours, prediction, torch.float64),
        noise.x_T().double(),
        times=times_of(theirs.timesteps),
        noise=noise,
    )
    torch.testing.assert_close(end, x_t, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("beta_schedule", SCHEDULES)
def test_ddim_at_equal_seeds_as_it_comes(beta_schedule, zero_snr):
    """Float32, both sides' own tables, noise from per-image generators: the same pictures."""
    theirs = DDIMScheduler(
        beta_schedule=beta_schedule,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    theirs.set_timesteps(50)
    noise, drawn = NoiseSource(SEEDS, SHAPE), generators()
    x_t = noise.x_T()
    for k in theirs.timesteps:
        x_t = theirs.step(call(WavyNetwork(), x_t, k), k, x_t, eta=0.2, generator=drawn).prev_sample

    ours = SCHEDULES[beta_schedule](zero_terminal_snr=zero_snr)
    times = time_grid(ours, 50)  # uniform is their trailing
    torch.testing.assert_close(times[:-1], times_of(theirs.timesteps)[:-1])
    end = DDIM(eta=0.2).sample(denoiser(ours, "v_prediction"), noise.x_T(), times=times, noise=noise)
    torch.testing.assert_close(end, x_t, atol=2e-4, rtol=0)


MULTISTEP = [(DPMSolverMultistepScheduler, DPMSolverPP2M()), (UniPCMultistepScheduler, UniPC())]


@pytest.mark.parametrize("num_steps", [8, 20])  # they treat fewer than 15 steps apart
@pytest.mark.parametrize(
    ("kind", "sampler", "spacing"),
    [(*MULTISTEP[0], spacing) for spacing in ("trailing", "leading", "linspace")] + [(*MULTISTEP[1], "leading")],
)
@pytest.mark.parametrize(("beta_schedule", "prediction", "zero_snr"), CASES)
def test_dpmpp_2m_and_unipc(kind, sampler, spacing, beta_schedule, prediction, zero_snr, num_steps):
    """On their table, which keeps alpha^2 = 2^-24 where zero terminal SNR says 0."""
    theirs = kind(
        beta_schedule=beta_schedule,
        prediction_type=prediction,
        timestep_spacing=spacing,
        rescale_betas_zero_snr=zero_snr,
        final_sigmas_type="zero",
    )
    theirs.set_timesteps(num_steps)
    x_T = NoiseSource(SEEDS, SHAPE).x_T()
    x_t = x_T
    for k in theirs.timesteps:
        x_t = theirs.step(call(WavyNetwork(), x_t, k), k, x_t).prev_sample

    alpha_bar = torch.cat([torch.ones(1), theirs.alphas_cumprod]).double()
    ours = DiscreteSchedule(1 - alpha_bar[1:] / alpha_bar[:-1])
    end = sampler.sample(denoiser(ours, prediction), x_T, times=times_of(theirs.timesteps))
    scale = x_t.abs().max().item()  # large for epsilon from pure noise, divided by a small alpha
    torch.testing.assert_close(end, x_t, atol=2e-5 * max(scale, 1), rtol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("kind", "sampler"), MULTISTEP)
def test_dpmpp_2m_and_unipc_on_the_flow_path(kind, sampler, shift):
    theirs = kind(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, final_sigmas_type="zero")
    theirs.set_timesteps(20)
    x_T = NoiseSource(SEEDS, SHAPE).x_T()
    x_t, network = x_T, WavyNetwork()
    for k, sigma in zip(theirs.timesteps, theirs.sigmas):
        x_t = theirs.step(network(x_t, sigma.expand(len(x_t))), k, x_t).prev_sample
    end = sampler.sample(denoiser(Flow(), "flow_prediction"), x_T, times=theirs.sigmas)
    torch.testing.assert_close(end, x_t, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_on_the_flow_path(shift):
    """Their shift moves the grid; ours can move the grid or, equally, the schedule."""
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=torch.linspace(1, 1 / 20, 20).tolist())
    x_T = NoiseSource(SEEDS, SHAPE).x_T()
    x_t, network = x_T, WavyNetwork()
    for k, sigma in zip(theirs.timesteps, theirs.sigmas):
        x_t = theirs.step(network(x_t, sigma.expand(len(x_t))), k, x_t).prev_sample
    end = Euler().sample(denoiser(Flow(), "flow_prediction"), x_T, times=theirs.sigmas)
    torch.testing.assert_close(end, x_t, atol=1e-5, rtol=0)

    shifted = Flow(shift=shift)

    def at_their_time(x_t, t):  # the network was told sigma, not t
        return network(x_t, shifted.alpha_sigma(t)[1])

    moved = Denoiser(at_their_time, schedule=shifted, prediction=FlowPrediction())
    end = Euler().sample(moved, x_T, times=time_grid(shifted, 20))
    torch.testing.assert_close(end, x_t, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("kind", "sampler"), [(EulerDiscreteScheduler, Euler()), (EulerAncestralDiscreteScheduler, Ancestral())]
)
def test_euler_and_euler_ancestral(kind, sampler, prediction):
    """They step in x / alpha, we in x, from the same picture there."""
    theirs = kind(beta_schedule="linear", prediction_type=prediction, timestep_spacing="trailing")
    theirs.set_timesteps(25)
    ours = DiscreteSchedule(theirs.betas)
    noise, drawn = NoiseSource(SEEDS, SHAPE), generators()
    x_T = noise.x_T()
    alpha, _ = ours.alpha_sigma(torch.ones(1))
    z = x_T / alpha
    for k in theirs.timesteps:
        out = call(WavyNetwork(), theirs.scale_model_input(z, k), k)
        z = theirs.step(out, k, z, generator=drawn).prev_sample
    end = sampler.sample(denoiser(ours, prediction), x_T, times=times_of(theirs.timesteps), noise=noise)
    torch.testing.assert_close(end, z, atol=2e-5 * max(z.abs().max().item(), 1), rtol=0)


@pytest.mark.parametrize("path", [Flow(), LinearBeta(zero_terminal_snr=True)])
@pytest.mark.parametrize(
    ("kind", "sampler"), [(EDMEulerScheduler, Euler()), (EDMDPMSolverMultistepScheduler, DPMSolverPP2M())]
)
def test_edm_preconditioning_and_its_samplers(kind, sampler, path):
    """They noise as x_0 + s eps, down from s = 80; we are at the same s in any schedule's coordinates."""
    theirs = kind(sigma_data=0.5, sigma_max=80.0)
    theirs.set_timesteps(18)
    network, low, high = WavyNetwork(), torch.tensor(0.002).log(), torch.tensor(80.0).log()

    def clocked(x, c_noise):
        return network(x, ((4 * c_noise - low) / (high - low)).clamp(0, 1).expand(len(x)))

    x_T = NoiseSource(SEEDS, SHAPE).x_T()
    x = x_T * theirs.sigmas[0]
    for c_noise in theirs.timesteps:
        x = theirs.step(clocked(theirs.scale_model_input(x, c_noise), c_noise), c_noise, x).prev_sample

    times = path.t_of_log_snr(-2 * theirs.sigmas.double().log())
    alpha, _ = path.alpha_sigma(times[:1])
    ours = Denoiser(network, schedule=path, prediction=Edm(sigma_data=0.5))
    end = sampler.sample(ours, (alpha * theirs.sigmas[0] * x_T).float(), times=times)
    torch.testing.assert_close(end, x, atol=2e-3, rtol=1e-3)
