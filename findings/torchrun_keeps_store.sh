#!/usr/bin/env bash
# torch 2.13.0: torchrun starts all processes anew when one has died (`--max-restarts`). One would guess that the key-value store of the
# new attempt is empty: every process is new, and a comment in torch's own source says that each attempt gets a new store.
# The store is the agent's, which lives on, and no part of a key tells the attempts apart. So what a dead attempt wrote is read by
# the next: a counter goes on from where it was, and a key that says "process 0 is ready" is there before process 0 is. It is so for the store of the default process group and for
# one's own `TCPStore` at MASTER_PORT. A key that has TORCHELASTIC_RESTART_COUNT in it is safe.
# Seen: attempt 0: ready False, counter 1; attempt 1: ready True, counter 2.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy
cat >"$work/attempt.py" <<'PY'
import os
import sys

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
dist.init_process_group("gloo")
own = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
for name, store in (("process group", _get_default_store()), ("own TCPStore", own)):
    ready, count = store.check([f"ready {name}"]), store.add(f"counter {name}", 1)
    store.set(f"ready {name}", "yes")
    print(f"attempt {attempt}, {name}: ready {ready}, counter {count}", flush=True)
dist.destroy_process_group()
sys.exit(1 if attempt == 0 else 0)  # the first attempt fails
PY
cd "$work"
export OMP_NUM_THREADS=1
venv/bin/python -m torch.distributed.run --standalone --nproc-per-node 1 --max-restarts 1 attempt.py >said.txt 2>errors.txt
cat said.txt
for name in "process group" "own TCPStore"; do
    grep -q "attempt 0, $name: ready False, counter 1" said.txt && grep -q "attempt 1, $name: ready True, counter 2" said.txt ||
        { echo "it is not so any more"; exit 1; }
done
