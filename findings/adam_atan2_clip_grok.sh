#!/usr/bin/env bash
# adam-atan2-pytorch 0.4.1, torch 2.13.0: `AdamAtan2ClipGrok` caps the norm of each row of a weight after each step, at `clip_to_grok_max_norm=2`, as its paper
# does to make networks generalise earlier. One would guess that rows below 2 are left alone and that longer ones are cut to 2. A row is divided by its clipped
# norm, where it had to be multiplied by the clipped norm over its own. So a row of 1.9 is cut to 1.04, one of 3 to 1.5, and every row of any norm is made
# shorter at each step, by 1 to 4 % and whatever its gradient: weights as PyTorch draws them (0.58) are at a third after 100 steps. What is trained is a
# balance between the learning rate and this decay, which no learning rate scales. Nothing is said. Give `clip_to_grok=False` and clip by hand after `step`.
# Seen: rows of norm 0.3, 0.58, 1, 1.5, 1.9, 3 with a gradient of 0: after one step 0.298, 0.566, 0.893, 1.000, 1.037, 1.502, after 1,000 all about 0.012. A
# layer that is to learn rows of norm 1, lr 1e-3: loss 0.00 with AdamAtan2, 0.41 with AdamAtan2ClipGrok, its rows at 0.39 (no answer costs 1.00).
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 adam-atan2-pytorch==0.4.1 numpy
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from adam_atan2_pytorch import AdamAtan2, AdamAtan2ClipGrok

LIMIT = 2.0


def norms_after(steps, norms):
    """Norms of rows after steps whose gradient is 0, with the package's own limit of 2."""
    weight = torch.nn.Parameter(torch.eye(len(norms)) * torch.tensor(norms)[:, None])
    optimizer = AdamAtan2ClipGrok([weight], lr=1e-4)
    assert optimizer.defaults["clip_to_grok_max_norm"] == LIMIT
    for _ in range(steps):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    return weight.detach().norm(dim=1).tolist()


def trained(optimizer_of, lr):
    """The loss of a layer that is to learn rows of norm 1, and the norm of its rows."""
    torch.manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(32, 64), dim=1)
    layer = torch.nn.Linear(64, 32, bias=False)
    optimizer = optimizer_of(layer.parameters(), lr=lr)
    for _ in range(3000):
        x = torch.randn(64, 64)
        loss = torch.nn.functional.mse_loss(layer(x), x @ truth.T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item(), layer.weight.detach().norm(dim=1).mean().item()


print(*(f"{name} {version(name)}" for name in ("adam-atan2-pytorch", "torch")))
start = [0.3, 0.58, 1.0, 1.5, 1.9, 3.0]
once, hundred, thousand = (norms_after(steps, start) for steps in (1, 100, 1000))
for name, norms in (("norm of a row", start), ("after 1 step", once), ("after 100", hundred), ("after 1,000", thousand)):
    print(f"{name:>14}", *(f"{norm:7.3f}" for norm in norms))
plain, with_clip = trained(AdamAtan2, 1e-3), trained(AdamAtan2ClipGrok, 1e-3)
print("a layer that is to learn rows of norm 1 (no answer costs 1.00): loss {:.4f}, norm {:.2f} with AdamAtan2".format(*plain))
print("                                                                loss {:.4f}, norm {:.2f} with AdamAtan2ClipGrok".format(*with_clip))
assert all(after < before for after, before in zip(once, start, strict=True)), once
assert max(thousand) < 0.1 and once[4] < 1.1, (thousand, once)
assert plain[0] < 0.01 and with_clip[0] > 0.1, (plain, with_clip)
PY
