#!/usr/bin/env bash
# lightning 2.6.6, torch 2.13.0: a resumed run moves the state of its optimiser to the device. One would guess that all of it goes
# there. Every entry named `step` stays where it was loaded, because torch's own unfused optimisers count on the CPU; so an
# optimiser of one's own that keeps its step on the device, as fused kernels need, finds it on the CPU after a resume and
# nowhere else. The device here is "meta", which every machine has.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 lightning==2.6.6
"$work/venv/bin/python" - <<'PY'
import torch
from lightning.fabric.utilities.optimizer import _optimizer_to_device

weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.SGD([weight], lr=0.1)
optimizer.state[weight] = {"step": torch.ones(()), "average": torch.ones(2)}
_optimizer_to_device(optimizer, torch.device("meta"))
where = {name: value.device.type for name, value in optimizer.state[weight].items()}
print(where)
assert where == {"step": "cpu", "average": "meta"}, where
PY
