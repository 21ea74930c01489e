#!/usr/bin/env bash
# k-diffusion 0.1.1.post1, torch 2.14.1, torchvision 0.29.1: a U-Net of type `image_v1` with `dropout_rate` has dropout in its convolutions and in its
# attention. One would guess that `eval()` turns both off. It turns off the one in the convolutions: attention hands the rate to `scaled_dot_product_attention`,
# which knows nothing of `eval()`. So each validation, each FID and each picture of the trained network is made with dropout. One seed gives another picture
# each time, unless the global generator is seeded too, and a sampler that calls the network twice for a step compares answers of two networks. Nothing is said.
# The configs for U-Nets of 32 px that come with the package train with a rate of 0.05. Before it is used, set the rate to 0 by hand: `for module in
# net.modules(): if isinstance(module, torch.nn.Dropout): module.p = 0.0`.
# Seen: a small network, trained for 100 steps with a rate of 0.05, in `eval()`: two answers to one input are 0.071 of their size apart, and two pictures of one
# seed 0.019, after 20 steps of Heun; with the rate at 0 by hand 0 and 0.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 k-diffusion==0.1.1.post1 setuptools==80.9.0 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import k_diffusion
import torch

RATE, SIZE, STEPS = 0.05, 16, 100


def stripes(draw):
    """Pictures of stripes that run one way each, in [-0.7, 0.7]."""
    phase, angle = torch.rand(32, 3, 1, 1, generator=draw) * 6.3, torch.rand(32, 1, 1, 1, generator=draw) * 3.1
    along, down = torch.arange(SIZE).view(1, 1, 1, -1), torch.arange(SIZE).view(1, 1, -1, 1)
    return 0.7 * torch.sin(0.9 * (along * angle.cos() + down * angle.sin()) + phase)


def trained():
    """A small network after a short training, in `eval()`."""
    torch.manual_seed(0)
    blocks = {"depths": [2, 2], "channels": [32, 64], "self_attn_depths": [False, True]}
    net = k_diffusion.Denoiser(k_diffusion.models.ImageDenoiserModelV1(3, 64, **blocks, dropout_rate=RATE), sigma_data=0.5)
    optimiser, draw = torch.optim.AdamW(net.parameters(), lr=2e-3), torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        x, sigma = stripes(draw), (torch.randn(32, generator=draw) * 1.2 - 1.2).exp()
        loss = net.loss(x, torch.randn(x.shape, generator=draw), sigma).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


@torch.no_grad()
def apart(net):
    """How far two answers to one input, and two pictures of one seed, are apart, as shares of their size."""
    noise = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    sigmas = k_diffusion.sampling.get_sigmas_karras(20, 0.01, 80)
    ways = (lambda: net(noise, torch.ones(4)), lambda: k_diffusion.sampling.sample_heun(net, noise * 80, sigmas, disable=True))
    return [((one - other).norm() / one.norm()).item() for one, other in ((way(), way()) for way in ways)]


print(*(f"{name} {version(name)}" for name in ("k-diffusion", "torch")))
net = trained()
answers, pictures = apart(net)
for module in net.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
still = apart(net)
print(f"in eval(), rate {RATE}: two answers {answers:.3f} apart, two pictures {pictures:.3f}; with the rate at 0 by hand {still[0]:.3f}, {still[1]:.3f}")
assert min(answers, pictures) > 0.002 and still == [0, 0], (answers, pictures, still)
PY
