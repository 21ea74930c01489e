#!/usr/bin/env bash
# torch 2.13.0: FakeTensorMode lets tensors live on "cuda" without a GPU, so that tests can find code which mixes devices. One
# would guess that every operation on a CPU tensor and a CUDA tensor raises there, as on a GPU. `a + b` does. Lists of tensors
# in place do not: `torch._foreach_add_`, which optimisers and averages are made of, answers without a word.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$work/venv/bin/python" - <<'PY'
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

with FakeTensorMode():
    here, there = torch.ones(2), torch.ones(2, device="cuda")
    try:
        here + there
    except RuntimeError as error:
        print("a + b:", str(error).splitlines()[0])
    else:
        raise SystemExit("the sum of mixed devices does not raise any more")
    torch._foreach_add_([there], [here])
    print("_foreach_add_:", there.device, "and no error")
PY
