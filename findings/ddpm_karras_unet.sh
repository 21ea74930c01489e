#!/usr/bin/env bash
# denoising-diffusion-pytorch 2.3.4, torch 2.14.1, torchvision 0.29.1: `KarrasUnet` is the network of EDM2. There each block mixes 0.7 of what comes in with 0.3
# of what it makes of it, and one would guess that `resnet_mp_add_t=0.3` and `attn_res_mp_add_t=0.3`, the defaults, say so. The two are mixed the wrong way
# round: 0.3 of what comes in and 0.7 of what the block makes. So of what goes into a block 0.39 is left behind it where 0.92 should be, and of what goes
# through eight blocks a two-thousandth where half should be: the network has hardly a residual path, and its gradients neither. Nothing is said: it trains, but
# worse. `resnet_mp_add_t=0.7` changes nothing, as it is not handed on to the blocks. Set it by hand: `for module in net.modules(): if isinstance(module,
# MPAdd): module.t = 0.7`, with `MPAdd` of `denoising_diffusion_pytorch.karras_unet`.
# Seen: share of a block's input that is left behind it: by default 0.39, with `resnet_mp_add_t=0.7` 0.39, by hand 0.92.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 denoising-diffusion-pytorch==2.3.4 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from denoising_diffusion_pytorch import KarrasUnet
from denoising_diffusion_pytorch.karras_unet import Decoder, MPAdd

SIZE = 16


def network(by_hand=False, **settings):
    torch.manual_seed(0)
    net = KarrasUnet(image_size=SIZE, dim=16, dim_max=32, channels=3, num_downsamples=1, num_blocks_per_stage=4, attn_res=(), dropout=0.0, **settings)
    for module in net.modules():
        if by_hand and isinstance(module, MPAdd):
            module.t = 0.7
    return net


@torch.no_grad()
def left(net):
    """What is left of the input of a block behind it, with its own answer taken away."""
    block = net.mids[0]
    assert isinstance(block, Decoder)
    x = torch.randn(4, 32, SIZE // 2, SIZE // 2, generator=torch.Generator().manual_seed(1))
    block.block2.register_forward_hook(lambda module, given, made: torch.zeros_like(made))
    return (block.eval()(x) / x).mean().item()



print(*(f"{name} {version(name)}" for name in ("denoising-diffusion-pytorch", "torch")))
for name, wanted, settings in (("default", 0.39, {}), ("resnet_mp_add_t=0.7", 0.39, {"resnet_mp_add_t": 0.7}), ("by hand", 0.92, {"by_hand": True})):
    found = left(network(**settings))
    print(f"{name}: {found:.2f} of a block's input is left behind it")
    assert abs(found - wanted) < 0.01, found
PY
