#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.13.0: `EMAModel(decay=0.9999, use_ema_warmup=False)`. One would guess that the average decays by 0.9999 from
# the first step, and that the flag turns a warm-up on. The flag chooses between two warm-ups. With False the decay
# after n steps is at most (1 + n) / (10 + n), so a run of 10,000 steps never sees more than 0.9991, and 0.9999 is reached after
# about 90,000 steps. With True that takes a million. An average of the same decay written by hand is another one: after 1,000
# steps on weights of 1, from 0, it is 0.095, and that of diffusers is 1. What turns the warm-up off is `min_decay=0.9999`, but for
# the first step, which always copies the weights.
# Seen: decays 0.181818, 0.917431, 0.99108, 0.999101, 0.9999 at steps 2, 100, 1000, 10000, 100000 with False.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import torch
from diffusers.training_utils import EMAModel

weight = torch.nn.Parameter(torch.zeros(1))
steps = (2, 100, 1_000, 10_000, 100_000)
for warmup in (False, True):
    average = EMAModel([weight], decay=0.9999, use_ema_warmup=warmup)
    decays = {n: round(average.get_decay(n), 6) for n in steps}
    print(f"use_ema_warmup={warmup}:", decays)
    assert decays[10_000] < 0.9992, decays
assert decays[100_000] < 0.9999, "the warm-up of True is shorter now"
floor = EMAModel([weight], decay=0.9999, min_decay=0.9999, use_ema_warmup=False)
print("min_decay=0.9999:", {n: floor.get_decay(n) for n in (1, 2, 100)})
assert [floor.get_decay(n) for n in (1, 2, 100)] == [0.0, 0.9999, 0.9999]

average = EMAModel([weight], decay=0.9999, use_ema_warmup=False)
by_hand = torch.zeros(1)
with torch.no_grad():
    weight.fill_(1.0)
    for _ in range(1_000):
        average.step([weight])
        by_hand.lerp_(weight, 1 - 0.9999)
    weight.zero_()
    average.copy_to([weight])
print(f"1,000 steps on weights of 1, from 0: diffusers {weight.item():.3f}, by hand {by_hand.item():.3f}")
assert weight.item() > 0.999 and by_hand.item() < 0.1
PY
