#!/usr/bin/env bash
# adam-atan2-pytorch 0.4.1, torch 2.13.0: `MuonAdamAtan2(muon_params, params)` takes the matrices out of `params` and gives the rest to Adam. One would guess
# that a run resumes from `state_dict()`, as with every optimiser of PyTorch, which finds the state of a weight by its place in the list. The rest is made with
# `set`, so its order is that of addresses in memory, which are others in the next process: `load_state_dict` gives Adam's averages to other weights, here to
# nearly all gains. Where shapes differ the next step raises; where they are alike (gains of norms, biases) nothing is said. Take
# the matrices out by hand, in order, and give `remove_muon_params_from_params=False`.
# Seen: of 24 gains 18 to 24 have another gain's averages after a resume, which are up to 2.3 times as large, in each of several processes; 0 with AdamAtan2. Loss
# ten steps later 0.9701 to 0.9713, where the run itself has 0.9677.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 adam-atan2-pytorch==0.4.1 numpy
cat >"$work/resume.py" <<'PY'
import sys
import torch
from adam_atan2_pytorch import AdamAtan2, MuonAdamAtan2

DEPTH, WIDTH = 24, 32


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.lift = torch.nn.RMSNorm(WIDTH), torch.nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        return x + self.lift(self.norm(x)).tanh()


def start(kind):
    """A residual network and its optimiser, as the package's example makes them: matrices to Muon, the rest to Adam."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(*(Block() for _ in range(DEPTH)))
    if kind == "AdamAtan2":
        return net, AdamAtan2(net.parameters(), lr=1e-3)
    return net, MuonAdamAtan2(muon_params=[p for p in net.parameters() if p.ndim == 2], params=net.parameters(), lr=1e-3)


def train(net, optimizer, steps):
    for step in steps:
        x = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(step))
        loss = torch.nn.functional.mse_loss(net(x), x.roll(1, dims=1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def averages(net, optimizer):
    """Adam's average of squared gradients of each gain, by name."""
    return {name: optimizer.state[p]["exp_avg_sq"].clone() for name, p in net.named_parameters() if p.ndim == 1}


what, path, kind = sys.argv[1:]
if what == "train":
    net, optimizer = start(kind)
    train(net, optimizer, range(100))
    saved = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "averages": averages(net, optimizer)}
    torch.save({**saved, "went_on": None}, path)
    went_on = train(net, optimizer, range(100, 110))
    torch.save({**torch.load(path, weights_only=True), "went_on": went_on}, path)
else:
    saved = torch.load(path, weights_only=True)
    net, optimizer = start(kind)
    net.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    found = averages(net, optimizer)
    moved = sum(not torch.equal(average, saved["averages"][name]) for name, average in found.items())
    ratio = max((found[name].mean() / saved["averages"][name].mean()).item() for name in found)
    print(kind, moved, len(found), f"{ratio:.1f}", f"{train(net, optimizer, range(100, 110)):.4f}", f"{saved['went_on']:.4f}")
PY
cd "$work"
for kind in AdamAtan2 MuonAdamAtan2; do
  OMP_NUM_THREADS=1 venv/bin/python -W ignore resume.py train "$kind.pt" "$kind"
  for _ in 1 2 3 4; do OMP_NUM_THREADS=1 venv/bin/python -W ignore resume.py resume "$kind.pt" "$kind" >>found.txt; done
done
cat found.txt
venv/bin/python - <<'PY'
from importlib.metadata import version

rows = [line.split() for line in open("found.txt")]
print(*(f"{name} {version(name)}" for name in ("adam-atan2-pytorch", "torch")))
moved = {kind: [int(row[1]) for row in rows if row[0] == kind] for kind in ("AdamAtan2", "MuonAdamAtan2")}
losses = {kind: [(row[4], row[5]) for row in rows if row[0] == kind] for kind in moved}
for kind, counts in moved.items():
    after, own = sorted({resumed for resumed, _ in losses[kind]}), losses[kind][0][1]
    print(f"{kind}: of {rows[0][2]} gains {counts} have another's averages after a resume; loss {after}, of the run itself {own}")
assert moved["AdamAtan2"] == [0] * 4 and all(a == b for a, b in losses["AdamAtan2"]), moved
assert max(moved["MuonAdamAtan2"]) > 0, moved
PY
