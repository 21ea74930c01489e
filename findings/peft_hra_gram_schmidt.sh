#!/usr/bin/env bash
# peft 0.21.2, torch 2.13.0: HRA fine-tunes a network by mirroring its weights at r vectors, which begin as pairs of equal ones, so that each two mirrors undo
# one another. One would guess that with `apply_GS=True`, which makes the vectors orthogonal as the method's paper proposes, training starts from the network as it was,
# too. Two equal vectors cannot be made orthogonal: of the second nothing is left but what was rounded, and that is scaled up to length 1. So each
# pair mirrors at one trained vector and at one of rounding noise, and the network that training starts from is another one, with no word.
# The gradient is divided by that rounding as well: it is some ten million times the one without `apply_GS`. The noise is another on another machine.
# Leave `apply_GS` False, or begin with `init_weights=False`, which draws vectors that differ, and does not claim to begin where the network was.
# Seen: not trained yet, r 2, 4, 8, 16 at a layer of 64: the output is 49 %, 68 %, 94 %, 128 % off; without apply_GS 0 %. Gradient, r 8: 0.034 and 460,000.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 peft==0.21.2 numpy
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from peft import HRAConfig, get_peft_model

WIDTH = 64


def begun(rank, apply_GS, **settings):
    """How far an adapter that is not trained yet moves the output, the length of its first gradient, and the vectors."""
    torch.manual_seed(0)
    net, x = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH)), torch.randn(256, WIDTH)
    before = net(x).detach()
    net = get_peft_model(net, HRAConfig(r=rank, apply_GS=apply_GS, target_modules=["0"], **settings))
    after = net(x)
    (after - torch.randn_like(after)).square().mean().backward()
    vectors = next(weights for name, weights in net.named_parameters() if "hra_u" in name)
    return ((after - before).norm() / before.norm()).item(), vectors.grad.norm().item(), vectors.detach()


print("peft", version("peft"), "torch", version("torch"))
for rank in (2, 4, 8, 16):
    plain, gradient, vectors = begun(rank, apply_GS=False)
    off, huge, _ = begun(rank, apply_GS=True)
    assert torch.equal(vectors[:, ::2], vectors[:, 1::2]), "the vectors do not begin in pairs any more"
    print(f"r {rank}, not trained: off by {plain:.0%}, with apply_GS {off:.0%}; gradient {gradient:.3g}, with apply_GS {huge:.3g}")
    assert plain < 1e-5 and off > 0.2 and huge > 1e4 * gradient, (plain, off, gradient, huge)
_, drawn, _ = begun(8, apply_GS=True, init_weights=False)
print(f"r 8, apply_GS, vectors that differ: gradient {drawn:.3g}")
assert drawn < 10, drawn
PY
