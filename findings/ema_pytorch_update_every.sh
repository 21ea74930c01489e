#!/usr/bin/env bash
# ema-pytorch 0.8.3, torch 2.13.0: `EMA(net, beta=0.999, update_every=10)` averages weights each tenth step, which its README calls a saving of
# compute. One would guess that the average is the same one, made with less work. The decay is not raised to the tenth power, so the
# average looks ten times as far back: half of what it holds is 6,900 steps old or older, and not 690. `update_every=10` is the default,
# so an average of a decay from a paper is ten times too slow. On weights that go from 0 to 1, it is at 0.1 after 1,000 steps,
# where an average of each step is at 0.63. `beta=0.999**10` with `update_every=10` is what was guessed.
# Seen: each step 0.632, each tenth 0.095, each tenth with beta 0.999**10 0.632.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 ema-pytorch==0.8.3 numpy
"$work/venv/bin/python" - <<'PY'
import torch
from ema_pytorch import EMA


def averaged(**settings):
    """The average, 1,000 steps after the weights went from 0 to 1. `power` ends the warm-up of the decay at once."""
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    ema = EMA(net, update_after_step=0, power=10.0, **settings)
    for _ in range(31):
        ema.update()
    torch.nn.init.ones_(net.weight)
    for _ in range(1_000):
        ema.update()
    return ema.ema_model.weight.item()


for settings, wanted in (
    ({"beta": 0.999, "update_every": 1}, 0.632),
    ({"beta": 0.999, "update_every": 10}, 0.095),
    ({"beta": 0.999}, 0.095),
    ({"beta": 0.999**10, "update_every": 10}, 0.632),
):
    found = averaged(**settings)
    print(f"{settings}: {found:.3f}")
    assert abs(found - wanted) < 0.01, (found, wanted)
PY
