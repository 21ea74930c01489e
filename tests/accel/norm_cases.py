"""The fast group norm against PyTorch's in float64, run by Triton's interpreter: `TRITON_INTERPRET=1 python -m ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_art.accel.layers import plain_group_norm
from diffusion_art.accel.norm_operators import fast_group_norm

# rows, channels, height, width, groups, dtype, scaled, silu, offset
CASES = {
    "a block's second norm": (2, 24, 5, 7, 4, torch.float32, True, True, True),
    "in bfloat16": (2, 64, 8, 8, 32, torch.bfloat16, True, True, True),
    "a block's first norm": (1, 96, 16, 16, 2, torch.bfloat16, False, True, False),
    "before attention, in float16": (3, 40, 3, 3, 4, torch.float16, False, False, False),
    "one position, groups of 256": (1, 512, 1, 1, 2, torch.float32, False, False, True),
    "several parts of a map": (1, 36, 40, 40, 3, torch.float32, True, False, False),
}
BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def run(twin: Callable[..., Tensor], x: Tensor, net: nn.GroupNorm, *told: Tensor | None, silu: bool, grad: Tensor):
    """The answer and all gradients, by name."""
    given = dict(zip(("x", "scale", "shift", "offset"), (x, *told)))
    leaves = {name: None if v is None else v.detach().requires_grad_() for name, v in given.items()}
    net.zero_grad()
    y = twin(leaves["x"], net, leaves["scale"], leaves["shift"], silu=silu, offset=leaves["offset"])
    y.backward(grad.to(y.dtype))
    grads = {name: leaf.grad for name, leaf in leaves.items() if leaf is not None}
    return {"y": y.detach(), **grads, **{name: p.grad.clone() for name, p in net.named_parameters()}}


def check(rows, channels, height, width, groups, dtype, scaled, silu, offset) -> None:
    torch.manual_seed(0)
    last = {"memory_format": torch.channels_last}
    x = (5 + 2 * torch.randn(rows, channels, height, width)).to(dtype).contiguous(**last)
    net = nn.GroupNorm(groups, channels)
    nn.init.normal_(net.weight)
    nn.init.normal_(net.bias)
    told = [*torch.randn(rows, 2 * channels).to(dtype).chunk(2, dim=1)] if scaled else [None, None]
    told.append(torch.randn(channels) if offset else None)
    grad = torch.randn(rows, channels, height, width).to(dtype)
    found, again = (run(fast_group_norm, x, net, *told, silu=silu, grad=grad) for _ in range(2))
    exact = [v if v is None else v.double() for v in told]
    truth = run(plain_group_norm, x.double(), net.double(), *exact, silu=silu, grad=grad.double())
    assert found.keys() == truth.keys()
    assert found["y"].dtype == dtype
    assert found["y"].is_contiguous(**last)
    for name, value in found.items():
        assert torch.equal(value, again[name]), f"{name} differs between two runs"
        error = ((value.double() - truth[name]).norm() / truth[name].norm().clamp(min=1e-9)).item()
        assert error < BOUNDS[value.dtype], f"{name}: {error:.1e}"


def compiled_too() -> None:
    """Within a compiled function, under autocast, it is one operator and gives the same."""
    net = nn.GroupNorm(4, 8)
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    compiled = torch.compile(lambda x: fast_group_norm(x, net, silu=True).sin(), backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = compiled(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    wanted = plain_group_norm(x, net, silu=True).sin()
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(grad, torch.autograd.grad(wanted.sum(), x)[0], atol=1e-5, rtol=1e-4)


if __name__ == "__main__":
    for name, case in CASES.items():
        try:
            check(*case)
        except AssertionError as error:
            sys.exit(f"{name}: {error}")
    compiled_too()
