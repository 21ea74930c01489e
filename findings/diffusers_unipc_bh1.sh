#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.13.0: UniPC is offered with two solvers, and its description recommends `bh1` for fewer than ten steps
# without a prompt. One would guess that `UniPCMultistepScheduler(solver_type="bh1")` paints. Every sample is NaN, after any number
# of steps and with no error: the last step goes to a noise of zero, where the logarithm of signal to noise is infinite, and `bh1`
# multiplies by it. Each step before the last is sound. `final_sigmas_type="sigma_min"` ends just above zero, and works.
# Seen: 8 steps: bh2 finite; bh1 finite for 7 steps, then 0% finite; bh1 with sigma_min finite.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import torch
from diffusers import UniPCMultistepScheduler


def finite(steps, **settings):
    """The share of finite pixels after each step, for a denoiser that calls a tenth of its input noise."""
    scheduler = UniPCMultistepScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **settings)
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    shares = []
    for t in scheduler.timesteps:
        x = scheduler.step(0.1 * x, t, x).prev_sample
        shares.append(x.isfinite().float().mean().item())
    return shares


for steps in (4, 8, 30):
    bh2, bh1 = finite(steps, solver_type="bh2"), finite(steps, solver_type="bh1")
    short = finite(steps, solver_type="bh1", final_sigmas_type="sigma_min")
    print(f"{steps} steps, finite at the end: bh2 {bh2[-1]:.0%}, bh1 {bh1[-1]:.0%}, bh1 with sigma_min {short[-1]:.0%}")
    assert set(bh2) == set(short) == set(bh1[:-1]) == {1.0}, (bh2, bh1, short)
    assert bh1[-1] == 0.0, "bh1 paints now"
PY
