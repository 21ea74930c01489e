#!/usr/bin/env bash
# peft 0.21.2, torch 2.13.0: several adapters may be active at once (`model.base_model.set_adapter(["style", "subject"])`), and one would guess that their
# changes are added, as with LoRA and as `merge_and_unload` does. C3A stores what its first adapter gives under the name of the layer's input, so the second is
# fed with what the first gives and not with the input, and so on. If the first is not trained yet, so gives 0, the second does nothing at all; else it answers
# to something that it has never seen. Merged they are added, so another network is shipped than was looked at; and a second adapter that is trained beside the
# first learns to correct it and not to see. Nothing is said. Merge the first before the second is trained or used.
# Seen: share of the wanted change that the layer makes, and how far it is off: only the second trained 0.00, 1.00, merged 1.00, 0.00; both trained 0.74, 0.45,
# merged 1.00, 0.00.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 peft==0.21.2 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import peft
import torch

WIDTH = 8


def model(*trained):
    """A linear layer with two C3A adapters, both active, of which the named are trained."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH))
    net = peft.get_peft_model(layers, peft.C3AConfig(block_size=4, target_modules=["0"], init_weights=True), "style")
    net.add_adapter("subject", peft.C3AConfig(block_size=4, target_modules=["0"], init_weights=True))
    for name in trained:
        kernel = net.base_model.model[0].c3a_kernel[name]
        kernel.data = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(len(name)))
    net.base_model.set_adapter(["style", "subject"])
    return net.eval()


def share(net, x, wanted):
    """How much of the wanted change the model makes, and how far it is from the wanted change, as a share of that."""
    change = net(x) - base(x)
    return ((change * wanted).sum() / wanted.square().sum()).item(), ((change - wanted).norm() / wanted.norm()).item()


print(*(f"{name} {version(name)}" for name in ("peft", "torch")))
torch.manual_seed(0)
base = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH)).eval()
x = torch.randn(1000, WIDTH, generator=torch.Generator().manual_seed(9))
with torch.no_grad():
    deltas = {name: model("style", "subject").base_model.model[0].get_delta_weight(name) for name in ("style", "subject")}
    for trained in (("subject",), ("style", "subject")):
        wanted = x @ sum(deltas[name] for name in trained).T
        active, merged = share(model(*trained), x, wanted), share(model(*trained).merge_and_unload(), x, wanted)
        print(f"trained {' and '.join(trained)}: both active {active[0]:.2f} of the change, off by {active[1]:.2f}; merged {merged[0]:.2f}, {merged[1]:.2f}")
        assert active[1] > 0.3 and merged[1] < 1e-4, (active, merged)
        assert active[0] == 0 or len(trained) == 2, active
PY
