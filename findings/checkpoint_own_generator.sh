#!/usr/bin/env bash
# torch 2.13.0: `torch.utils.checkpoint` saves memory by running a block again in the backward pass, and puts the random state back before, so that dropout is
# the same both times. One would guess that this holds for random numbers in general. It holds for torch's global generators only. A block that draws from a
# `torch.Generator` of its own, as code does whose pictures are to have seeds of their own, gets other numbers the second time: the loss is that of one
# dropout and the gradient that of another. The shapes agree, so the check that the two runs agree, which is on by default, finds nothing. With a rate of one
# half, half of the gradient belongs to units that played no part, and the generator is drawn from twice a step, so later noise changes as well.
# Draw before, and hand the numbers to the block as an argument.
# Seen: gradient of a dropout of 0.5, elements wrong: own generator 50 %, with and without `use_reentrant`; global generator and a mask handed in 0 %.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from torch.utils.checkpoint import checkpoint

WIDTH = 10_000


def wrong(drawn, *, reentrant):
    """The share of a gradient's elements that do not belong to the loss, of a block with a dropout of 0.5."""
    own = torch.Generator().manual_seed(0)

    def block(x, handed_in=None):
        if drawn == "handed in":
            kept = handed_in
        else:
            kept = torch.rand(WIDTH, generator=own if drawn == "own generator" else None) < 0.5
        return x * kept

    x = torch.ones(WIDTH, requires_grad=True)
    handed_in = torch.rand(WIDTH) < 0.5
    y = checkpoint(block, x, handed_in, use_reentrant=reentrant)
    y.sum().backward()
    return (x.grad != y).float().mean().item()


print("torch", version("torch"))
for drawn, wanted in (("global generator", 0.0), ("handed in", 0.0), ("own generator", 0.5)):
    for reentrant in (False, True):
        found = wrong(drawn, reentrant=reentrant)
        print(f"{drawn}, use_reentrant={reentrant}: {found:.1%} of the gradient is wrong")
        assert abs(found - wanted) < 0.02, (drawn, reentrant, found)
PY
