#!/usr/bin/env bash
# torch 2.13.0: `torch.distributed.checkpoint.state_dict.get_optimizer_state_dict` reads an optimiser's state, to save it. One would guess
# that reading changes nothing. Before the first step there is no state, and the call makes it by taking a step, with gradients of zero
# and a learning rate of zero. The weights stay. But Adam has counted that step: its averages are zero and its bias correction is
# that of step two from then on. So the first real step is 0.74 of what it should be, and a run that saved at step 0 is another run
# than one that did not, with equal seeds. It needs no process group.
# SGD with momentum is not changed. At step 0, save the model alone.
# Seen: AdamW, first step of lr 0.01: 0.01000 without the call, 0.00744 after it; SGD: equal.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy
"$work/venv/bin/python" - <<'PY'
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict


def moved(make, saved_first):
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 4, bias=False)
    before = net.weight.detach().clone()
    optimizer = make(net.parameters())
    if saved_first:
        get_optimizer_state_dict(net, optimizer)
        assert torch.equal(net.weight, before), "the call moves the weights now"
    counted = [int(state["step"]) for state in optimizer.state.values() if "step" in state]
    net(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    return round((net.weight - before).abs().mean().item(), 5), counted


for name, make, changed in (
    ("AdamW", lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=0.0), True),
    ("SGD with momentum", lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9), False),
):
    (plain, _), (late, counted) = moved(make, False), moved(make, True)
    print(f"{name}: the first step moves the weights by {plain}; by {late} after the call, which counted {counted or 'no'} step")
    assert (plain != late) == changed, (plain, late)
    assert not changed or (counted == [1] and 0.7 < late / plain < 0.8), (counted, plain, late)
PY
