#!/usr/bin/env bash
# autoregressive-diffusion-pytorch 0.4.0, torch 2.14.1: `clamp_during_sampling=True`, the default, is to clamp what the network answers to -1 to 1 while it
# paints. One would guess that training is not touched. The loss goes through the same function, which falls back to the same flag: in training too the answer
# is clamped before it is compared, so a token outside -1 to 1 has a loss that no answer brings down and, once the answer is past 1, no gradient. For pictures
# in -1 to 1 that does little. For latents of variance 1, which the package is for (images without a codebook, and the example in its README feeds
# `torch.randn`), 32 % of the values are outside, and at low noise, where the loss is weighted most, they are nearly all of the loss. Nothing is said. Give
# `diffusion_kwargs=dict(clamp_during_sampling=False)`.
# Seen: loss of the right answer for tokens of variance 1: 40.28, and 0.00 with the flag off. For tokens of 2 at a noise level of 1: answered 0.5 a loss of
# 11.25 with a slope of -15.00 either way; answered 1.5 5.00 with a slope of 0.00, where the flag off has 1.25 and -5.00; answered 2.0 5.00 and 0.00, where the
# flag off has 0.00.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 autoregressive-diffusion-pytorch==0.4.0 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from autoregressive_diffusion_pytorch import AutoregressiveDiffusion
from autoregressive_diffusion_pytorch.autoregressive_diffusion import ElucidatedDiffusion

SIZE, BATCH = 16, 4096


class Right(torch.nn.Module):
    """A network that gives what the formula of Karras et al. asks for: it is handed the answer as `cond`."""

    def __init__(self, sigma_data):
        super().__init__()
        self.sigma_data = sigma_data
        self.error = torch.nn.Parameter(torch.zeros(1))

    def forward(self, noised, *, times, cond):
        sigma = (4 * times).exp()[:, None]
        total = (sigma**2 + self.sigma_data**2).sqrt()
        skip, out = self.sigma_data**2 / total**2, sigma * self.sigma_data / total
        return (cond + self.error - skip * noised * total) / out


def loss(tokens, clamp, error=0.0, sigmas=None):
    """The loss of a network that is wrong by `error`, and its derivative by that."""
    torch.manual_seed(1)
    net = Right(0.5)
    diffusion = ElucidatedDiffusion(SIZE, net, clamp_during_sampling=clamp)
    torch.nn.init.constant_(net.error, error)
    found = diffusion(tokens, cond=tokens, sigmas=sigmas)
    found.backward()
    return found.item(), net.error.grad.item()


print(*(f"{name} {version(name)}" for name in ("autoregressive-diffusion-pytorch", "torch")))
default = AutoregressiveDiffusion(dim=SIZE, max_seq_len=4, depth=1, heads=1, dim_head=8).diffusion
assert default.clamp_during_sampling
latents = torch.randn(BATCH, SIZE, generator=torch.Generator().manual_seed(0))
twos, noise = torch.full((BATCH, SIZE), 2.0), torch.ones(BATCH)
clamped, free = loss(latents, clamp=True), loss(latents, clamp=False)
print(f"loss of the right answer, tokens of variance 1: {clamped[0]:.2f}; {free[0]:.2f} with clamp_during_sampling=False")
for error in (-1.5, -0.5, 0.0):
    (cost, slope), (free_cost, free_slope) = loss(twos, True, error, noise), loss(twos, False, error, noise)
    print(f"tokens of 2, answered {2 + error:.1f}: loss {cost:.2f}, slope {round(slope, 2) + 0:.2f}; {free_cost:.2f}, {round(free_slope, 2) + 0:.2f} with clamp_during_sampling=False")
    assert (slope == 0) == (error > -1) and (cost > 4) and (abs(free_slope) > 1) == (error < 0), (error, cost, slope)
assert clamped[0] > 1 and free[0] < 1e-3, (clamped, free)
PY
