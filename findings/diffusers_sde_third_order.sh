#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.13.0: `DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=3)` is the third-order solver with fresh noise at
# each step. One would guess that it paints what the second-order one paints, with a smaller error, and that more steps help. Its third-order term
# has a half subtracted that should be added, so that instead of vanishing with the length of a step it is as large as the difference of three
# estimates, which the fresh noise dominates. That noise stays in the picture, and more steps add more of it. Nothing is said, and each picture
# looks like one that was sampled with too few steps. Here the network is exact: the pictures have a spread of 0.5, and the samples should.
# `solver_order=2` is right. So is order 3 without the noise ("dpmsolver++"); with `use_karras_sigmas=True` the fault shrinks with the steps.
# Seen: spread after 20, 50, 100, 500 steps: order 2: 0.460, 0.488, 0.496, 0.500; order 3: 0.475, 0.539, 0.576, 0.654, which is 71 % more variance.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
from importlib.metadata import version

import torch
from diffusers import DPMSolverMultistepScheduler

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STEPS = (20, 50, 100, 500)
SPREAD = 0.5  # of the pictures: each pixel is Gaussian


def spread(steps, **settings):
    """The spread of samples for a network that estimates the noise of such pictures exactly."""
    torch.manual_seed(0)
    scheduler = DPMSolverMultistepScheduler(**STABLE_DIFFUSION, **settings)
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 4, 128, 128)
    for t in scheduler.timesteps:
        alpha, sigma = scheduler.alphas_cumprod[t].sqrt(), (1 - scheduler.alphas_cumprod[t]).sqrt()
        picture = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * x
        x = scheduler.step((x - alpha * picture) / sigma, t, x).prev_sample
    return round(x.std().item(), 3)


print("diffusers", version("diffusers"), "torch", version("torch"))
noisy = {"algorithm_type": "sde-dpmsolver++"}
found = {}
for name, settings in (
    ("order 2, with noise", {**noisy, "solver_order": 2}),
    ("order 3, with noise", {**noisy, "solver_order": 3}),
    ("order 3, with noise, Karras", {**noisy, "solver_order": 3, "use_karras_sigmas": True}),
    ("order 3, without noise", {"solver_order": 3}),
):
    found[name] = [spread(steps, **settings) for steps in STEPS]
    print(f"{name}: spread {found[name]} after {STEPS} steps, of pictures with {SPREAD}")
wrong = found.pop("order 3, with noise")
assert all(abs(each[-1] - SPREAD) < 0.01 for each in found.values()), found
assert wrong == sorted(wrong) and wrong[-2] > 1.1 * SPREAD and wrong[-1] > 1.25 * SPREAD, wrong
PY
