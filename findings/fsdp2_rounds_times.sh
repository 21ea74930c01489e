#!/usr/bin/env bash
# torch 2.13.0, diffusers 0.42.1: `fully_shard(net, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))` is FSDP2's mixed precision. One
# would guess that it does what autocast does: weights and activations in 16 bits, while the times of a diffusion model, which diffusers'
# networks turn to sines in float32, stay what they are. FSDP2 casts each float tensor that the network is called with, times too, before any
# code of the network runs. From 512 on bfloat16 knows multiples of 4 only: the network is told 1000 for 998 and for 999, and half of 1,000
# times are told as another. In training and in sampling each time is up to 2 off, and a network that goes from autocast to FSDP2 is told
# of other noise than it has learnt. Times that are integers are not cast. Those of flow models are not: keep their sines outside the
# module that has the policy, or use autocast with FSDP2, without a policy.
# Seen: times 997.0, 998.0, 999.0: told 996, 1000, 1000, equal outputs for the last two; as integers and under autocast 997, 998, 999.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy
cd "$work"
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 venv/bin/python -W ignore - <<'PY'
import torch
import torch.distributed as dist
from diffusers import UNet2DModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
x_t = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def unet(sharded):
    """A small UNet of diffusers, and the list of the times that its embedding gets."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    net = UNet2DModel(sample_size=8, block_out_channels=(32,), norm_num_groups=8, **blocks)
    if sharded:
        fully_shard(net, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    told = []
    net.time_proj.register_forward_pre_hook(lambda module, inputs: told.append(inputs[0].float().item()))
    return net, told


@torch.no_grad()
def asked(sharded, times):
    net, told = unet(sharded)
    with torch.autocast("cpu", torch.bfloat16, enabled=not sharded):
        outputs = [net(x_t, torch.tensor([time])).sample for time in times]
    return told, torch.equal(outputs[-1], outputs[-2])


floats, integers = (997.0, 998.0, 999.0), (997, 998, 999)
exact = [997.0, 998.0, 999.0]
for said, sharded, times, wanted in (
    ("autocast, floats", False, floats, (exact, False)),
    ("FSDP2, integers", True, integers, (exact, False)),
    ("FSDP2, floats", True, floats, ([996.0, 1000.0, 1000.0], True)),
):
    found = asked(sharded, times)
    print(f"{said}: the network is told {found[0]}; outputs for the last two are equal: {found[1]}")
    assert found == wanted, found
told, _ = asked(True, [float(time) for time in range(1000)])
apart = max(abs(a - b) for a, b in zip(told, range(1000), strict=True))
print(f"FSDP2: of 1000 times the network can tell {len(set(told))} apart; they are up to {apart:g} off")
assert len(set(told)) == 507 and apart == 2
dist.destroy_process_group()
PY
