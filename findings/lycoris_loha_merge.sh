#!/usr/bin/env bash
# lycoris-lora 4.1.3, torch 2.13.0: LoHa fine-tunes a network by a change of its weights that is scaled by alpha / dim, as LoRA's is. One would guess that
# `merge_to(1.0)` adds the change that was trained. It scales it twice: once where the change is made and once more where it is merged. With
# `linear_dim=16` and `linear_alpha=1`, which is the default, the merged network has a sixteenth of what training showed, and its pictures look as if
# nothing had been trained; with an alpha above dim it has too much. Nothing is said. With alpha equal to dim the fault cannot be seen. LoRA and LoKr are right.
# `merge_to(dim / alpha)` adds what was trained.
# Seen: share of the trained change that is merged: LoHa 1.00, 0.50, 0.06, 2.00 for alpha 16, 8, 1, 32 and dim 16; LoRA and LoKr 1.00 for all.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 lycoris-lora==4.1.3 numpy
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PY'
import logging
from importlib.metadata import version

import torch
from lycoris import LycorisNetwork, create_lycoris

logging.disable(logging.CRITICAL)
DIM = 16
LycorisNetwork.apply_preset({"target_module": ["Sequential"]})


@torch.no_grad()
def merged_share(algo, alpha, weight=1.0):
    """The change of a merged network's output, as a share of its change while the adapter was being trained."""
    torch.manual_seed(0)
    net, x = torch.nn.Sequential(torch.nn.Linear(64, 64)).eval(), torch.randn(8, 64)
    before = net(x)
    adapter = create_lycoris(net, 1.0, linear_dim=DIM, linear_alpha=alpha, algo=algo)
    assert len(adapter.loras) == 1
    adapter.apply_to()
    adapter.eval()
    for weights in adapter.parameters():
        weights.normal_(std=0.3)
    trained = net(x) - before
    adapter.restore()
    assert torch.equal(net(x), before)
    adapter.merge_to(weight)
    return ((net(x) - before).norm() / trained.norm()).item()


print("lycoris-lora", version("lycoris-lora"), "torch", version("torch"))
for algo in ("lora", "lokr", "loha"):
    found = {alpha: merged_share(algo, alpha) for alpha in (16, 8, 1, 32)}
    print(f"{algo}, dim {DIM}: alpha and the share that is merged:", {alpha: round(share, 3) for alpha, share in found.items()})
    for alpha, share in found.items():
        assert abs(share - (alpha / DIM if algo == "loha" else 1)) < 1e-3, (algo, alpha, share)
told = merged_share("loha", 1, weight=DIM)
print(f"loha, alpha 1, merge_to({DIM}): {told:.3f}")
assert abs(told - 1) < 1e-3, told
PY
