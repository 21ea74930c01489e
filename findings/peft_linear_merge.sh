#!/usr/bin/env bash
# peft 0.21.2, torch 2.14.1: `add_weighted_adapter(["style", "subject"], [1.0, 1.0], "both", combination_type="linear")` makes one LoRA of two, as peft's page
# on LoRA shows it. One would guess that "linear" gives the weighted sum of what they change. It adds up the two down matrices and the two up matrices by
# themselves, and their product holds style's down with subject's up and subject's down with style's up as well: changes that nobody trained, as large as the
# wanted ones. "dare_linear", which diffusers' page shows for a picture of two LoRAs, adds up so too. A DoRA loses the lengths that were trained, whichever type
# is named, since the new one takes the initial ones. Nothing is said, and of one adapter "linear" gives that adapter, so it seems right.
# `combination_type="cat"` gives the sum, at twice the rank; so do "svd" with `svd_rank` at twice the rank, and having both active without a new one.
# Seen: how far what the new adapter changes is from what is wanted, as a share of it: one LoRA: 0.00 for all types; two: linear 1.00, dare_linear 1.00, svd
# 0.00, cat 0.00. One DoRA whose lengths were trained to differ by a tenth, cat: 0.34.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 peft==0.21.2 numpy
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import peft
import torch

WIDTH, RANK = 64, 8


@torch.no_grad()
def off(way, names, dora=False):
    """How far what the new adapter changes is from what the named ones change together, as a share of the latter."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH))
    x = torch.randn(200, WIDTH)
    plain = net(x)
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["0"], init_lora_weights=False, use_dora=dora)
    net = peft.get_peft_model(net, config, names[0])
    for name in names[1:]:
        net.add_adapter(name, config)
    layer = net.base_model.model[0]
    for name in names:
        if dora:  # training has moved the lengths too
            layer.lora_magnitude_vector[name].weight.mul_(1 + 0.1 * torch.randn(WIDTH))
    net.base_model.set_adapter(list(names))
    wanted = net(x) - plain
    settings = {"svd": {"svd_rank": RANK * len(names)}, "dare_linear": {"density": 1.0}}
    net.add_weighted_adapter(list(names), [1.0] * len(names), "new", combination_type=way, **settings.get(way, {}))
    net.set_adapter("new")
    return ((net(x) - plain - wanted).norm() / wanted.norm()).item()


print(*(f"{name} {version(name)}" for name in ("peft", "torch")))
for names in (("style",), ("style", "subject")):
    for way in ("linear", "dare_linear", "svd", "cat"):
        found = off(way, names)
        print(f"{' and '.join(names)}, {way}: off by {found:.2f}")
        wrong = len(names) > 1 and "linear" in way
        assert (found > 0.5) if wrong else found < 1e-3, (names, way, found)
for way in ("linear", "svd", "cat"):
    found = off(way, ("style",), dora=True)
    print(f"style as DoRA, {way}: off by {found:.2f}")
    assert found > 0.1, (way, found)
PY
