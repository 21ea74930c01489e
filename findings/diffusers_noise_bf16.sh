#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.13.0: `DDPMScheduler.add_noise` makes the noisy picture of a training step. With mixed precision the latents that
# come out of a frozen VAE are bfloat16. One would guess that the noisy picture is rounded, to two or three digits. It is the schedule
# that is rounded: alpha^2 is cast to the latents' type, and the noise is the root of 1 less that, while bfloat16 knows only steps of 1/256 below 1.
# Of 1,000 levels 192 are left, and the network is told the timesteps as they were. The least levels are 0: at the first two
# timesteps, with `DDPMScheduler()` at the first ten, a network that estimates the noise is shown none, and fails whatever it has learnt.
# `get_velocity` rounds alike. `add_noise(latents.float(), noise.float(), t)` gives what was guessed.
# Seen: noise at t = 0, 1, 2, 10: float32 0.0292, 0.0413, 0.0506, 0.0978; bfloat16 0, 0, 0.0625, 0.0884.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import torch
from diffusers import DDIMScheduler, DDPMScheduler

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def levels(scheduler, dtype):
    """How much of unit noise is in the noisy picture of a picture that is 0, at each timestep."""
    nothing, noise = (value.to(dtype) for value in (torch.zeros(1000, 1, 1, 1), torch.ones(1000, 1, 1, 1)))
    return scheduler.add_noise(nothing, noise, torch.arange(1000)).flatten().float()


for name, scheduler, wanted in (
    ("DDPM, as Stable Diffusion", DDPMScheduler(**STABLE_DIFFUSION), (192, 2)),
    ("DDIM, as Stable Diffusion", DDIMScheduler(**STABLE_DIFFUSION), (192, 2)),
    ("DDPM, its defaults", DDPMScheduler(), (190, 10)),
):
    for dtype in (torch.float32, torch.bfloat16):
        found = levels(scheduler, dtype)
        distinct, silent = len(found.unique()), int((found == 0).sum())
        first = [round(found[t].item(), 4) for t in (0, 1, 2, 10)]
        print(f"{name}, {dtype}: t = 0, 1, 2, 10: {first}; {distinct} levels, {silent} without noise")
        assert (distinct, silent) == ((1000, 0) if dtype == torch.float32 else wanted), (distinct, silent)

scheduler, one, zero = DDPMScheduler(**STABLE_DIFFUSION), torch.ones(1, 1), torch.zeros(1, 1)
velocity = abs(scheduler.get_velocity(one.bfloat16(), zero.bfloat16(), torch.tensor([0])).item())
rounded = scheduler.add_noise(zero, one, torch.tensor([0])).bfloat16().item()
print(f"t = 0: share of the picture in bfloat16's velocity {velocity:.4f}; noise, made in float32 and then rounded {rounded:.4f}")
assert velocity == 0 and abs(rounded - 0.0292) < 0.0002, (velocity, rounded)
PY
