#!/usr/bin/env bash
# denoising-diffusion-pytorch 2.3.4, torch 2.14.1, torchvision 0.29.1: `GaussianDiffusion(immiscible=True)` gives each picture of a batch the noise of the batch that
# lies nearest to it, after the paper "Immiscible Diffusion". One would guess that the network is asked for the noise that its picture was given. The noises are put
# in their new order inside `q_sample` alone, and the loss is taken against the old order: nearly every picture is asked for the noise of another one, which cannot be
# seen in it. So a network that knows the right answer has a loss of 2, twice that of one that answers nothing, and training ends at the latter. It holds for
# `pred_noise` and for `pred_v`, the default. The loss goes down to 1 and stays there, as one of a hard data set would; nothing is said. Put the noises in order
# before and hand them in: `diffusion(x, noise=noise[diffusion.noise_assignment(2 * x - 1, noise)])` with `immiscible=False`.
# Seen: loss at t = 500 of the right answer, of none, and after training: plain 0.00, 1.00, 0.05; immiscible 1.93, 1.00, 1.00; handed in 0.00, 1.00, 0.04.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 denoising-diffusion-pytorch==2.3.4 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet

TIME, BATCH, SIZE = 500, 64, 8
WAYS = {"plain": False, "immiscible": True, "handed in": False}


class Answer(torch.nn.Module):
    """A network that answers by a rule: it is told the pictures, and so knows the noise."""

    channels = out_dim = 3
    self_condition = random_or_learned_sinusoidal_cond = False

    def forward(self, x, times, _=None):
        return self.rule(x)


def pictures():
    """Flat pictures of one colour each, of [0, 1]."""
    return torch.rand(BATCH, 3, 1, 1).expand(BATCH, 3, SIZE, SIZE).contiguous()


def asked(diffusion, way, x, times):
    noise = torch.randn_like(x)
    if way == "handed in":
        noise = noise[diffusion.noise_assignment(2 * x - 1, noise)]
    return diffusion(x, times=times, noise=noise)


def losses(way, objective):
    """The loss at one time of a network that answers right, and of one that answers nothing."""
    torch.manual_seed(0)
    diffusion = GaussianDiffusion(Answer(), image_size=SIZE, objective=objective, immiscible=WAYS[way])
    alpha, sigma = diffusion.sqrt_alphas_cumprod[TIME], diffusion.sqrt_one_minus_alphas_cumprod[TIME]
    x, times = pictures(), torch.full((BATCH,), TIME)

    def right(noised):
        noise = (noised - alpha * (2 * x - 1)) / sigma
        return noise if objective == "pred_noise" else alpha * noise - sigma * (2 * x - 1)

    found = []
    for diffusion.model.rule in (right, torch.zeros_like):
        found.append(asked(diffusion, way, x, times).item() / diffusion.loss_weight[TIME].item())
    return found


def trained(way):
    torch.manual_seed(0)
    net = Unet(dim=8, dim_mults=(1, 2), flash_attn=False)
    diffusion = GaussianDiffusion(net, image_size=SIZE, objective="pred_noise", immiscible=WAYS[way])
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    recent = []
    for _ in range(80):
        loss = asked(diffusion, way, pictures(), torch.full((BATCH,), TIME))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        recent = [*recent[-19:], loss.item()]
    return sum(recent) / len(recent)


print(*(f"{name} {version(name)}" for name in ("denoising-diffusion-pytorch", "torch")))
for way in WAYS:
    for objective in ("pred_noise", "pred_v"):
        right, nothing = losses(way, objective)
        print(f"{way}, {objective}: loss of the right answer {right:.2f}, of none {nothing:.2f}")
        assert (right > 1.2 * nothing) if way == "immiscible" else right < 1e-6, (way, right, nothing)
    end = trained(way)
    print(f"  after training {end:.2f}")
    assert (end > 0.95) if way == "immiscible" else end < 0.5, end
PY
