#!/usr/bin/env bash
# rectified-flow-pytorch 0.14.0, torch 2.14.1: `RectifiedFlow(net, use_consistency=True)` keeps a slow average of the network, which is what consistency flow matching
# learns from, and `sample(use_ema=True)` is to paint with it. One would guess that samples differ from those of the network that is being trained. The method that
# both go through takes the network as an argument and calls `self.model` all the same: samples with `use_ema=True` are those of the network itself, to the last bit,
# and the "slow" side of the consistency loss is the network itself a thousandth later, so that a network may agree with itself on anything. The average is kept, paid
# for, saved, and never called. Nothing is said. Paint with the average by hand: `flow.model = flow.ema_model.ema_model` around `sample`.
# Seen: a network that answers 1 everywhere, whose average answers 0.63: samples move by 1.00 with use_ema=False and 1.00 with True, by hand by 0.63; velocity_match
# of the loss 0.00, where the two are 0.37 apart; calls of the average's network: 0.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 rectified-flow-pytorch==0.14.0 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from rectified_flow_pytorch import RectifiedFlow

SHAPE = (3, 8, 8)


class Constant(torch.nn.Module):
    """A network whose flow is one number everywhere."""

    def __init__(self):
        super().__init__()
        self.flow = torch.nn.Parameter(torch.zeros(1))
        self.calls = 0

    def forward(self, x, times=None):
        self.calls += 1
        return self.flow.expand_as(x)


print(*(f"{name} {version(name)}" for name in ("rectified-flow-pytorch", "torch")))
torch.manual_seed(0)
net = Constant()
flow = RectifiedFlow(net, use_consistency=True, data_shape=SHAPE, consistency_decay=0.999, ema_update_after_step=0, ema_kwargs={"update_every": 1})
flow.post_training_step_update()  # the average begins as the network is now
with torch.no_grad():
    net.flow.fill_(1)
flow.post_training_step_update()
average = flow.ema_model.ema_model
apart = (net.flow - average.flow).item()
noise = torch.randn(4, *SHAPE)


def moved(use_ema):
    """How far samples are from their noise."""
    sampled = flow.sample(batch_size=4, noise=noise, use_ema=use_ema)
    return (2 * sampled - 1 - noise).mean().item()


average.calls = 0
found = {use_ema: moved(use_ema) for use_ema in (False, True)}
_, losses = flow(torch.rand(4, *SHAPE), return_loss_breakdown=True)
match, calls = float(losses.velocity_match), average.calls
flow.model = average
by_hand = moved(use_ema=False)
print(f"the average answers {average.flow.item():.2f}, the network {net.flow.item():.2f}")
print(f"samples move by {found[False]:.2f} with use_ema=False, {found[True]:.2f} with True, {by_hand:.2f} with the average by hand")
print(f"velocity_match {match:.2f}, where the two are {apart:.2f} apart; calls of the average's network: {calls}")
assert apart > 0.3 and abs(by_hand - average.flow.item()) < 1e-3, (apart, by_hand)
assert found[True] == found[False] and abs(found[True] - 1) < 1e-3, found
assert match < 1e-9 and calls == 0, (match, calls)
PY
