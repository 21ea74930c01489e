"""The stand-in for a GPU raises where a GPU does, and lets pass what one does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion_art.tensors import Conditioning
from tests.devices.fake_gpu import FakeGpu


def test_two_devices_in_one_operation_are_refused(gpu):
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    assert (here + here).tolist() == [2.0] * 3  # the CPU computes
    assert (there + 1).device.type == "cuda"
    assert (there + torch.ones(())).device.type == "cuda"  # a number is welcome
    for mixed in (
        lambda: here + there,
        lambda: torch.cat([here, there]),
        lambda: torch.where(here > 0, there, there),
        lambda: nn.functional.embedding(torch.zeros(2, dtype=torch.long), torch.ones(3, 3, device="cuda")),
        lambda: there.index_add_(0, torch.zeros(1, dtype=torch.long), there[:1]),
        lambda: torch._foreach_add_([there], [here]),
        lambda: torch.stack([here.sum(), there.sum()]),
        lambda: fused_adamw(there, step=torch.ones(())),
    ):
        with pytest.raises(RuntimeError, match=r"device"):
            mixed()
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()


def fused_adamw(p: torch.Tensor, *, step: torch.Tensor) -> None:
    settings = {"lr": 1.0, "beta1": 0.9, "beta2": 0.9, "weight_decay": 0.0, "eps": 1e-8}
    torch._fused_adamw_([p], [p], [p], [p], [], [step], **settings, amsgrad=False, maximize=False)


def test_a_conditioning_moves_whole(gpu):
    here = Conditioning(torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 4))
    there = here.to("cuda")
    assert (there.tokens * there.mask[..., None]).device.type == "cuda"


def test_indices_may_come_from_the_cpu_and_not_from_the_gpu(gpu):
    here, there = torch.ones(3, 2), torch.ones(3, 2, device="cuda")
    rows = torch.tensor([0, 2])
    assert there[rows].shape == there[[0, 2]].shape == there[rows.to("cuda")].shape == (2, 2)
    for mixed in (lambda: here[rows.to("cuda")], lambda: here.__setitem__(rows.to("cuda"), 0.0)):
        with pytest.raises(RuntimeError, match="indices should be either on cpu"):
            mixed()


def test_generators_fill_tensors_of_their_own_device(gpu):
    here, there = torch.Generator(), torch.Generator("cuda").manual_seed(3)
    assert isinstance(here, torch.Generator)
    assert (here.device.type, there.device.type) == ("cpu", "cuda")
    assert torch.rand(2, generator=there, device="cuda").device.type == "cuda"
    torch.empty(2, device="cuda").normal_(generator=there)
    torch.empty(2).normal_(generator=here)
    for mixed in (
        lambda: torch.rand(2, generator=here, device="cuda"),
        lambda: torch.empty(2, device="cuda").normal_(generator=here),
        lambda: torch.rand(2, generator=there),
    ):
        with pytest.raises(RuntimeError, match="device type for generator"):
            mixed()


def test_what_is_read_back_is_noted(gpu):
    there = torch.zeros(2, device="cuda")
    assert gpu.waits == []
    assert there.cpu().tolist() == [1.0, 1.0]
    assert there[0].item() == 1.0
    assert bool(there.isfinite().all())
    torch.ones(2).copy_(there)
    assert len(gpu.waits) == 4


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_a_module_moves_trains_and_keeps_its_parameters(gpu, precision):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 1, 1))
    parameters = list(net.parameters())
    optimizer = torch.optim.AdamW(net.to("cuda").parameters(), fused=True)
    assert all(p is q and p.device.type == "cuda" for p, q in zip(parameters, net.parameters(), strict=True))
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        hidden = net[0](torch.zeros(1, 3, 8, 8, device="cuda"))
        normed = net[1](hidden)
        out = net[2](normed)
    assert (hidden.dtype, normed.dtype, out.dtype) == (precision, torch.float32, precision)
    out.float().square().mean().backward()
    assert all(p.grad.device.type == "cuda" for p in parameters)
    optimizer.step()
    assert gpu.waits == []


def test_outside_there_is_no_gpu():
    with FakeGpu():
        assert torch.cuda.is_available()
    assert torch.cuda.device_count() == torch.cuda._device_count_nvml() or not torch.cuda.is_available()
    assert type(torch.Generator()) is torch.Generator
    assert type(torch.ones(1)) is torch.Tensor
