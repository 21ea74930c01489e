#!/usr/bin/env bash
# imagen-pytorch 2.1.0, torch 2.14.1: `Unet(self_cond=True)` shows the network its own first guess of the picture in half of the training steps. One would guess that
# the loss is taken against the picture, as before. The guess is stored under the name of the picture, so in these steps the target is made of the guess: with
# `pred_objectives="x_start"` the network is asked to repeat what it said, and with "v" to hit `alpha * noise - sigma * guess`, where the guess is not even a picture
# but what the network gave, a v. So half of the training pulls to what the network says already, and its loss looks better than it is: 0 for a network that answers
# nothing. With "noise", the default, all is well. Nothing is said.
# Seen: loss of a network that answers 0 without and with its guess shown, and of one that answers right: noise 1.00, 1.00 and 0.00, 0.00; x_start 0.32, 0.00 and
# 0.00, 0.00 (a right guess is its own target); v 0.43, 0.24 and 0.00, 0.49.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 imagen-pytorch==2.1.0 numpy
# To be imported, the package reads this config of the hub for its width alone.
mkdir -p "$work/google/t5-v1_1-base" && echo '{"model_type": "t5", "d_model": 768}' >"$work/google/t5-v1_1-base/config.json"
cd "$work" && HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PY'
import random
from importlib.metadata import version

import torch
from imagen_pytorch import Imagen, Unet

SIZE, BATCH, TIME = 16, 32, 0.5


def model(objective, answer):
    """An Imagen that conditions on its own guess, and whose network answers by a rule."""
    sizes = {"dim": 8, "cond_dim": 8, "dim_mults": (1,), "num_resnet_blocks": 1}
    net = Unet(**sizes, layer_attns=False, layer_cross_attns=False, cond_on_text=False, self_cond=True)
    imagen = Imagen(net, image_sizes=SIZE, condition_on_text=False, pred_objectives=objective, min_snr_loss_weight=False)
    imagen.unets[0].forward = lambda x, *_, **given: answer(x, given)
    return imagen


def losses(objective, right):
    """The loss without and with the guess, of a network that is right or answers 0; weighted as the package does."""
    x = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = {}

    def answer(noised, given):
        found["shown"] = found.get("shown", False) or "self_cond" in given
        if not right:
            return torch.zeros_like(noised)
        noise = (noised - alpha * (2 * x - 1)) / sigma
        return {"noise": noise, "x_start": 2 * x - 1, "v": alpha * noise - sigma * (2 * x - 1)}[objective]

    imagen = model(objective, answer)
    schedule = imagen.noise_schedulers[0]
    squared = torch.sigmoid(schedule.log_snr(torch.tensor(TIME)))
    alpha, sigma = squared.sqrt(), (1 - squared).sqrt()
    schedule.sample_random_times = lambda batch, device: torch.full((batch,), TIME, device=device)
    seed = 0
    while len(found) < 3:
        random.seed(seed)
        torch.manual_seed(0)
        seed, found["shown"] = seed + 1, False
        loss = imagen(x, unet_number=1).item()
        found[found["shown"]] = loss
    return found[False], found[True]


print(*(f"{name} {version(name)}" for name in ("imagen-pytorch", "torch")))
for objective in ("noise", "x_start", "v"):
    (nothing, nothing_shown), (right, right_shown) = losses(objective, right=False), losses(objective, right=True)
    print(f"{objective}: loss of no answer {nothing:.2f}, with its guess shown {nothing_shown:.2f}; of the right one {right:.2f}, {right_shown:.2f}")
    assert right < 1e-6 < nothing, (right, nothing)
    if objective == "noise":
        assert nothing_shown == nothing and right_shown < 1e-6
    elif objective == "x_start":
        assert nothing_shown == 0 and right_shown < 1e-6
    else:
        assert nothing_shown < 0.9 * nothing and right_shown > 0.1, (nothing_shown, right_shown)
PY
