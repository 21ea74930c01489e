#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.13.0: `FlowMatchEulerDiscreteScheduler`, with the shift of 3 that Stable Diffusion 3 has, asked for two steps.
# One would guess noise levels 1 and about 0.75, the shifted half, and then 0. They are 1, 0.0089 and 0: the levels are spread
# from the first to the last level of training, so the last call of the network is always spent on a picture that is all but clean.
# Two steps do the work of one, and four that of three. That last level is not training's 0.0030 either: the shift is applied
# twice to it, once when the scheduler is made and once by `set_timesteps`. Levels of one's own, as `sigmas=[1, 1/2]`, are
# shifted once, and give what was guessed.
# Seen: 2 steps: 1.0, 0.0089, 0.0; 4 steps: 1.0, 0.8577, 0.6022, 0.0089, 0.0; sigmas=[1, 0.5]: 1.0, 0.75, 0.0.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
from diffusers import FlowMatchEulerDiscreteScheduler

SHIFT = 3.0


def shifted(level):
    return SHIFT * level / (1 + (SHIFT - 1) * level)


def levels(**asked):
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)
    scheduler.set_timesteps(**asked)
    return [round(level, 4) for level in scheduler.sigmas.tolist()]


trained = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT).sigma_min
print(f"least level of training: {trained:.4f}; the shift of it: {shifted(trained):.4f}")
for steps in (2, 4, 28):
    found = levels(num_inference_steps=steps)
    print(f"{steps} steps:", *(found if steps < 5 else ["...", *found[-3:]]))
    assert abs(found[-2] - shifted(trained)) < 1e-3, found
own = levels(sigmas=[1.0, 0.5])
print("sigmas=[1, 0.5]:", *own)
assert own == [1.0, 0.75, 0.0], own
PY
