"""A pretended GPU that says where the host would wait for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.devices.fake_gpu import backward

READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")  # of values, by the host


class NoWaiting(TorchDispatchMode):
    """Raises where a GPU's host would have to wait for it, and counts the operations that a GPU would be sent.

    Inside `a_gpu()`. The host waits where it reads a value, and where a copy between the two is not said to be
    `non_blocking`: also in `torch.tensor(1.0, device="cuda")`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: Counter[str] = Counter()
        self.watching = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.watching:
            return out
        devices = set(_devices((args, kwargs))) | set(_devices(out))
        name = func.overloadpacket.__name__
        if "cuda" in devices:
            assert name not in READS, f"{func} waits for the device"
            if devices == {"cuda", "cpu"} and name in ("_to_copy", "copy_"):
                assert kwargs.get("non_blocking") or args[2:3] == (True,), f"{func} waits for the device"
            if not func.is_view and name not in ("detach", "device", "is_pinned", "lift_fresh"):
                self.sent[name] += 1
        return out


def _devices(tree: Any) -> Iterable[str]:
    return (leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


class PretendedEvent:
    """A CUDA event that has not come to pass while a step is taken."""

    def record(self) -> None: ...

    def query(self) -> bool:
        return False

    def synchronize(self) -> None: ...


def _pretended_list(tensor: Tensor) -> list[Any]:
    """Ones in place of the host's values, which are pretended too; those of the device may not be asked for."""
    assert tensor.device.type == "cpu", "the host waits for the device"
    return np.ones(tensor.shape).tolist()


@contextmanager
def a_gpu() -> Iterator[None]:
    """Inside the block there is a CUDA device that computes in bf16, pretended. What asks a driver is replaced."""
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTensorMode, "avoid_device_init", True)  # which it concludes from `is_available`
        for name, answer in {"is_available": True, "device_count": 1, "is_bf16_supported": True}.items():
            patch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
        for owner, name in (
            (CUDAAccelerator, "setup_device"),
            (CUDAAccelerator, "teardown"),
            (torch.cuda, "empty_cache"),
        ):
            patch.setattr(owner, name, lambda *_: None)
        patch.setattr(torch.cuda, "Event", PretendedEvent)
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        patch.setattr(torch.autograd, "backward", backward)
        patch.setattr(FakeTensor, "tolist", _pretended_list)
        patch.setattr(FakeTensor, "__deepcopy__", lambda tensor, memo: tensor.clone())
        yield


def on_fake_cuda(module: nn.Module) -> nn.Module:
    """The same module with weights and buffers of the same shapes and strides on a pretended CUDA device, in place.

    Inside `a_gpu()`, in which `module.to("cuda")` fails.
    """
    for part in module.modules():
        for name, weight in list(part._parameters.items()):
            if weight is not None:
                part._parameters[name] = nn.Parameter(_moved(weight), requires_grad=weight.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = _moved(buffer)
    return module


def _moved(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
