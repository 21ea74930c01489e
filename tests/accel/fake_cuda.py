"""A CUDA device that computes nothing, to count what a training step asks of one: fake tensors, every operation seen.

torch asks a driver for three things here, which have stand-ins: the walk back through the graph of gradients (for its
streams), the layout that a convolution answers in (cuDNN's rule), and which attention kernel it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from diffusion_art.tensors import Conditioning
from tests.devices.fake_gpu import backward

COPIES = ("clone", "_to_copy", "copy_")


class Watch(TorchDispatchMode):
    """(operation, inputs, outputs) of all that is asked of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[Tensor], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        outs = out if isinstance(out, tuple | list) else [out]
        self.seen.append((func.overloadpacket.__name__, tensors_of(args), tensors_of(outs)))
        return out

    def count(self, name: str) -> int:
        return sum(seen == name for seen, *_ in self.seen)

    def turned(self) -> list[tuple[int, ...]]:
        """The maps that were brought from one layout to the other."""
        copies = ((ins[0], outs[0]) for name, ins, outs in self.seen if name in COPIES and ins and outs)
        return [tuple(out.shape) for x, out in copies if is_map(x) and is_map(out) and last(x) != last(out)]

    def cast(self, *, rows: int, at_least: int) -> list[tuple[int, ...]]:
        """Activations of so many numbers and more that went from one dtype to another; weights have other rows."""
        outs = [outs[0] for name, _, outs in self.seen if name == "_to_copy" and outs]
        return [tuple(out.shape) for out in outs if out.numel() >= at_least and out.ndim > 2 and len(out) == rows]


def tensors_of(given: Any) -> list[Tensor]:
    return [each for each in given if isinstance(each, Tensor)]


def is_map(x: Tensor) -> bool:
    return x.ndim == 4 and x.shape[2] == x.shape[3] > 3


def last(x: Tensor) -> bool:
    return x.stride(1) == min(x.stride())


@contextmanager
def fake_cuda() -> Iterator[None]:
    def layout(x: Tensor, weight: Tensor, backend: Any) -> torch.memory_format:
        either = any(each.is_contiguous(memory_format=torch.channels_last) for each in (x, weight))
        return torch.channels_last if either else torch.contiguous_format

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        mask = None if attn_mask is None else attn_mask.expand(*q.shape[:3], k.shape[2])
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, mask, True)[0]

    with (
        FakeTensorMode(),
        torch.device("cuda"),
        mock.patch.object(torch._C, "_conv_determine_backend_memory_format", layout),
        mock.patch.object(F, "scaled_dot_product_attention", attention),
    ):
        yield


def step(net: nn.Module, *, rows: int, side: int, channels: int, width: int) -> Watch:
    """One forward and backward pass under bfloat16 autocast."""
    x_t, t = torch.randn(rows, channels, side, side), torch.rand(rows)
    cond = Conditioning(torch.randn(rows, 8, width), torch.ones(rows, 8, dtype=torch.bool), torch.randn(rows, width))
    with Watch() as watch:
        torch.set_autocast_enabled("cuda", True)  # torch.autocast switches itself off where there is no GPU
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.autocast_increment_nesting()
        try:
            loss = (net(x_t, t, cond).float() - x_t).square().mean()
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
        backward(loss)
    return watch
