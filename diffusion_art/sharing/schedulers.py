"""The scheduler of diffusers that does what a sampler of ours does.

In z = x_t / (alpha + sigma) every noise schedule is the straight path, and DDIM, DPM-Solver++ and UniPC take the same
steps there. So one scheduler of diffusers for flow models serves all of ours (`pipeline.py` uses it so).
"""

from __future__ import annotations

from typing import Any

from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.diffusion.samplers.consistency import Consistency
from diffusion_art.diffusion.samplers.ddim import DDIM
from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M, UniPC
from diffusion_art.diffusion.samplers.euler import Euler
from diffusion_art.diffusion.schedules import Schedule
from diffusion_art.errors import UserError

SOLVER: dict[str, Any] = {
    "solver_order": 2,
    "prediction_type": "sample",
    "use_flow_sigmas": True,
    "final_sigmas_type": "zero",
}


def scheduler_of(sampler: Sampler, schedule: Schedule) -> Any:
    """A scheduler that takes the sampler's steps.

    Raises:
        UserError: diffusers has none.
    """
    if isinstance(sampler, DPMSolverPP2M):
        return DPMSolverMultistepScheduler(**SOLVER)
    if isinstance(sampler, UniPC):  # which has nothing to correct after a step from pure noise
        return UniPCMultistepScheduler(**SOLVER, disable_corrector=[0] if schedule.zero_terminal_snr else [])
    if isinstance(sampler, Euler) or (isinstance(sampler, DDIM) and sampler.eta == 0):
        return FlowMatchEulerDiscreteScheduler()
    if isinstance(sampler, Consistency):
        return FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    eta = f" with eta={sampler.eta:g}" if isinstance(sampler, DDIM) else ""
    raise UserError(
        f"the run paints with {sampler.name}{eta}, which no scheduler of diffusers does in every noise schedule: "
        "export it with another sampler, such as sampler=dpmpp_2m."
    )
