#!/usr/bin/env bash
# ema-pytorch 0.8.3, torch 2.14.1: `PostHocEMA(net, sigma_rels=(0.05, 0.28))` keeps averages of the weights with the profiles of EDM2, and makes one of any
# other width from them afterwards. A width of 0.05 looks back over a twentieth of the training. One would guess that `update_every`, 100 unless it is set,
# averages each hundredth step's weights with the same profile. The decay is that of one step all the same, so the averages reach back to the beginning: of the
# narrow one a third are the weights before the first step, which are random. What is made of them afterwards is solved for profiles that they do not have, and
# two thirds of it are random weights. A longer training does not help, since the profiles are shares of it. Nothing is said, and the loss of the network itself
# falls as it should. `update_every=1` is right; 10, as in the README, is not.
# Seen: after 20,000 steps, share of the initial weights, mean age and width as shares of the training: kept with 0.05 (wanted 0.00, 0.05, 0.05): each step
# 0.00, 0.05, 0.05; each tenth 0.00, 0.36, 0.25; each hundredth 0.35, 0.85, 0.24. Made afterwards with 0.1 (wanted 0.00, 0.11, 0.10): each step 0.00, 0.11,
# 0.10; each tenth 0.21, 0.65, 0.35; each hundredth 0.69, 0.93, 0.18.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 ema-pytorch==0.8.3 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - "$work" <<'PY'
import sys
from importlib.metadata import version

import torch
from ema_pytorch import PostHocEMA

STEPS, NARROW, WIDE, MADE = 20_000, 0.05, 0.28, 0.1


class Clock(torch.nn.Module):
    """A network whose weights tell their age, so that an average of them tells its profile."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(4))

    @torch.no_grad()
    def at(self, step):
        when = step / STEPS
        self.weight.copy_(torch.tensor([1.0, when, when**2, float(step == 0)]))


def profile(net):
    """What the weights add up to, the share of the initial ones, and the mean age and width as shares of the training."""
    total, mean, square, first = net.weight.double().tolist()
    mean, square = mean / total, square / total
    return total, first, 1 - mean, max(square - mean**2, 0) ** 0.5


print(*(f"{name} {version(name)}" for name in ("ema-pytorch", "torch")))
for every in (1, 10, 100):
    net = Clock()
    folder = f"{sys.argv[1]}/{every}"
    settings = {"checkpoint_folder": folder, "checkpoint_every_num_steps": STEPS // 20, "checkpoint_dtype": torch.float32}
    averages = PostHocEMA(net, sigma_rels=(NARROW, WIDE), update_every=every, **settings)
    for step in range(STEPS + 1):
        net.at(step)
        averages.update()
    kept, made = profile(averages.ema_models[0].ema_model), profile(averages.synthesize_ema_model(sigma_rel=MADE).ema_model)
    for name, (total, first, age, width) in ((f"kept, {NARROW}", kept), (f"made afterwards, {MADE}", made)):
        print(f"update_every={every}, {name}: weights add up to {total:.2f}; initial weights {first:.2f}, mean age {age:.2f}, width {width:.2f}")
    if every == 1:
        assert abs(kept[3] - NARROW) < 0.01 and abs(made[3] - MADE) < 0.02 and made[1] < 0.01, (kept, made)
    else:
        assert kept[2] > 0.3 and made[1] > 0.1, (kept, made)
assert kept[1] > 0.2 and made[1] > 0.5, (kept, made)
PY
