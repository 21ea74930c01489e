#!/usr/bin/env bash
# peft 0.21.2, torch 2.13.0: OFT fine-tunes a network by rotating its weights, and begins with no rotation. One would guess that a network to which it was
# just added paints what it painted, as with LoRA. With a 3x3 convolution it does not: to rotate the weights, peft cuts the layer's input into
# overlapping patches, rotates each and adds them up again, without dividing by how many patches cover a pixel. So each pixel of the input is
# multiplied by 1 at the corners, by 9 inside, and by 25 for a 5x5 convolution. Training starts from that other network, with no word. `merge_and_unload`
# rotates the weights themselves, without patches: what is merged and shipped is not the network that was trained, and differs from it as much.
# Linear layers and 1x1 convolutions are right, and so is LoRA: leave convolutions out of OFT's `target_modules`, or take LoRA.
# Seen: not trained yet: a layer that hands its input on gives 9 times the input (25 times for 5x5, 1 time for 1x1); merged: 1 time. Trained: 275 % apart.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 peft==0.21.2 numpy
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from peft import LoraConfig, OFTConfig, get_peft_model

CHANNELS = 8


def passing_on(kernel):
    """A convolution of this size that hands its input on as it is."""
    net = torch.nn.Sequential(torch.nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, bias=False))
    torch.nn.init.dirac_(net[0].weight)
    return net


@torch.no_grad()
def times(kernel, config):
    """By what an adapter that is not trained yet multiplies the input: in a corner, inside, and inside once it is merged."""
    x = torch.ones(1, CHANNELS, 16, 16)
    net = get_peft_model(passing_on(kernel), config).eval()
    before, after = net(x), net.merge_and_unload()(x)
    return tuple(round(value.item(), 3) for value in (before[0, 0, 0, 0], before[0, 0, 8, 8], after[0, 0, 8, 8]))


@torch.no_grad()
def apart(config):
    """How far the network as it is trained is from the same network merged, for a rotation that was trained."""
    torch.manual_seed(0)
    x, net = torch.randn(1, CHANNELS, 16, 16), get_peft_model(passing_on(3), config).eval()
    for weights in net.parameters():
        if weights.requires_grad:
            weights.normal_(std=0.1)
    before, after = net(x), net.merge_and_unload()(x)
    return ((before - after).norm() / after.norm()).item()


print("peft", version("peft"), "torch", version("torch"))
oft = OFTConfig(target_modules=["0"], oft_block_size=CHANNELS, r=0)
lora = LoraConfig(target_modules=["0"], r=4)
for kernel, config, wanted in ((1, oft, (1, 1, 1)), (3, oft, (1, 9, 1)), (5, oft, (1, 25, 1)), (3, lora, (1, 1, 1))):
    found = times(kernel, config)
    where = dict(zip(("in a corner", "inside", "merged"), found, strict=True))
    print(f"{config.peft_type.value}, {kernel}x{kernel}, not trained, times the input: {where}")
    assert found == wanted, (found, wanted)
trained = {config.peft_type.value: apart(config) for config in (oft, lora)}
print("3x3, trained: the network is apart from the merged one by", {name: f"{value:.0%}" for name, value in trained.items()})
assert trained["OFT"] > 1 > 1e-4 > trained["LORA"], trained
PY
