#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.13.0: `EulerDiscreteScheduler` has two ways to lay out its noise levels, `interpolation_type="linear"` and "log_linear".
# One would guess that both tell the network the level of the picture it is given, and end at no noise. "log_linear" changes the levels
# and leaves the timesteps as they were, so halfway through 20 steps the network is told of 2.3 times the noise that is there. It
# also makes one level too many: the last step ends at the least level of training, and the 0 after it is never reached. No
# number of steps repairs it. The sample is of the right size and finite. `use_exponential_sigmas=True` lays the levels out alike, and right.
# Seen: step 10 of 20: level 0.653, told 1.481; up to 4.80 times apart; 0.029 at the end. Linear and exponential: 1.00 times, 0.000.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import numpy as np
import torch
from diffusers import EulerDiscreteScheduler

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}  # Stable Diffusion's
STEPS = 20

for settings, sound in (({}, True), ({"use_exponential_sigmas": True}, True), ({"interpolation_type": "log_linear"}, False)):
    scheduler = EulerDiscreteScheduler(**BETAS, **settings)
    trained = (1 / scheduler.alphas_cumprod - 1).sqrt().log().numpy()
    scheduler.set_timesteps(STEPS)
    x, levels, told = torch.zeros(1), [], []
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        levels.append(scheduler.sigmas[scheduler.step_index].item())
        told.append(float(np.exp(np.interp(t.item(), np.arange(1000), trained))))
        x = scheduler.step(torch.zeros(1), t, x).prev_sample
    end = scheduler.sigmas[scheduler.step_index].item()
    off = max(max(a, b) / min(a, b) for a, b in zip(levels, told, strict=True))
    print(f"{settings or 'linear'}: level {levels[10]:.3f}, told {told[10]:.3f}, farthest apart {off:.2f} times, at the end {end:.3f}")
    assert (off < 1.05 and end == 0) == sound, (off, end)
    if not sound:
        assert off > 2 and end > 0.02, (off, end)
PY
