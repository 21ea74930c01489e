#!/usr/bin/env bash
# prodigyopt 1.1.2, torch 2.13.0: Prodigy finds its own step size `d` from sums over all weights. For weights that are shared out among processes it
# has `fsdp_in_use`, and its documentation says that PyTorch's own FSDP is detected. One would guess that FSDP2 (`fully_shard`) is. It looks
# for a mark that only FSDP1 leaves. Under FSDP2 nothing is summed over the processes, since `.item()` of a sum of a sharded tensor gives a process's own
# share, without an error. So each process finds another `d` and moves its part of the weights by its own step size, and which weights
# learn fast depends on how they are shared out. Both differ from the run in one process. Checkpoints hold the `d` of one of them. Give
# `fsdp_in_use=True`, which needs CUDA.
# Seen: DTensor of 0..7 in two halves: sum().item() 6 and 22, of 28. d after 60 steps: 0.0913 and 0.0956, not sharded 0.0946 in both.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 prodigyopt==1.1.2 numpy
cat >"$work/shares.py" <<'PY'
import os

import torch
import torch.distributed as dist
from prodigyopt import Prodigy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))


def found_d(sharded):
    """Prodigy's `d` after 60 steps on a small network, with the same pictures in each process."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.SiLU(), torch.nn.Linear(16, 8))
    if sharded:
        fully_shard(net, mesh=mesh)
    optimizer = Prodigy(net.parameters(), lr=1.0)
    for _ in range(60):
        x = torch.randn(16, 8)
        optimizer.zero_grad()
        (net(x) - 2 * x.flip(1)).square().mean().backward()
        optimizer.step()
    return round(float(optimizer.param_groups[0]["d"]), 4)


own = int(distribute_tensor(torch.arange(8.0), mesh, [Shard(0)]).sum().item())
every = [None] * dist.get_world_size()
dist.all_gather_object(every, {"sum": own, "alone": found_d(False), "FSDP2": found_d(True)})
if dist.get_rank() == 0:
    print("sum().item() of a DTensor of 0 to 7, of each process:", [one["sum"] for one in every])
    print("d, of each process: not sharded", [one["alone"] for one in every], " FSDP2", [one["FSDP2"] for one in every], flush=True)
    assert [one["sum"] for one in every] == [6, 22], every
    assert every[0]["alone"] == every[1]["alone"] and every[0]["FSDP2"] != every[1]["FSDP2"], every
dist.barrier()
os._exit(0)  # at times gloo's threads abort a process that ends in the usual way
PY
cd "$work" && OMP_NUM_THREADS=1 venv/bin/python -W ignore -m torch.distributed.run --standalone --nproc-per-node 2 shares.py 2>errors.txt || { cat errors.txt; exit 1; }
