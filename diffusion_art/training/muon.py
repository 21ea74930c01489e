"""Muon for the hidden matrices, AdamW for everything else, as one optimiser.

    M <- mu M + (1 - mu) G,   U = orthogonalise((1 - mu) G + mu M),   W <- W - lr (0.2 sqrt(max(r, c)) U + wd W)

An update whose singular values are all about one moves every direction of a matrix alike, where Adam's moves
along a few. A convolution's kernel counts as the matrix [out, in * h * w].

Papers: Jordan et al. 2024, Muon, https://kellerjordan.github.io/posts/muon/; the factor 0.2 sqrt(max(r, c)), which
gives the update the size of Adam's so that both share one learning rate: Liu et al. 2025, Muon is Scalable for LLM
Training, https://arxiv.org/abs/2502.16982

`torch.optim.Muon` takes the same steps (a test says so) for two-dimensional parameters only: neither the kernels of
convolutions, which are most of a UNet, nor the vectors, so it would take a second optimiser beside it. It also works
one matrix at a time and always in bfloat16, which is slow on processors without it; here matrices of a shape go
together, wide and small ones by their Gram matrices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from diffusion_art.devices import computes_in_bf16

ADAM_SIZE = 0.2  # root mean square of an AdamW update, over its learning rate (Liu et al. 2025, section 2.2)
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: steep at zero, so that five steps suffice
GRAM_FROM = 4  # columns over rows from which it is faster, on a CPU, to iterate on the Gram matrix
GRAM_BELOW = 50_000  # numbers of a stack below which it is too, since there it can go together with others
TINY = 1e-7  # what a matrix of zeros is divided by


def orthogonalise(
    *stacks: Float[Tensor, "_n _r _c"], steps: int = 5, dtype: torch.dtype = torch.bfloat16
) -> list[Float[Tensor, "_n _r _c"]]:
    """U V^T of each matrix's singular value decomposition, nearly: singular values land in about [0.7, 1.2].

    Newton-Schulz iteration with a quintic: X <- a X + (b A + c A^2) X, A = X X^T, on the wide side. Matrices of a shape
    come as one stack.
    """
    wide = [x.mT if x.shape[1] > x.shape[2] else x for x in stacks]
    on_gram = defaultdict(list)  # by rows, the numbers of the stacks: Gram matrices of as many rows go together
    done: dict[int, Tensor] = {}
    for number, x in enumerate(wide):
        if x.device.type == "cpu" and (x.shape[2] >= GRAM_FROM * x.shape[1] or x.numel() < GRAM_BELOW):
            on_gram[x.shape[1]].append(number)
        else:
            done[number] = _newton_schulz(x, steps=steps, dtype=dtype)
    for numbers in on_gram.values():
        done.update(zip(numbers, _by_gram([wide[number] for number in numbers], steps=steps), strict=True))
    return [(done[n].mT if wide[n] is not x else done[n]).to(x.dtype) for n, x in enumerate(stacks)]


def _newton_schulz(x: Float[Tensor, "n r c"], *, steps: int, dtype: torch.dtype) -> Float[Tensor, "n r c"]:
    a, b, c = QUINTIC
    x = (x / (x.float().norm(dim=(1, 2), keepdim=True).to(x.dtype) + TINY)).to(dtype)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(stacks: list[Float[Tensor, "_n r _c"]], *, steps: int) -> list[Float[Tensor, "_n r _c"]]:
    """The same iteration on A alone, X <- P X being A <- P A P with P = a + b A + c A^2, and X multiplied once.

    For a kernel of three by three 2.7 times fewer FLOPs, and one iteration for all kernels of as many rows. All in
    float32: an eigenvalue that rounding made negative grows twelvefold a step, and what the matrix lacks stands in the
    product five hundred times as large as the rest.
    """
    a, b, c = QUINTIC
    stacks = [x.float() for x in stacks]
    gram = torch.cat([torch.bmm(x, x.mT) for x in stacks])
    norm = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None] + TINY
    gram, product = gram / norm.square(), 1 / norm
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor * product if step == 0 else torch.bmm(factor, product)
        if step < steps - 1:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    return [
        torch.bmm(p, x) if steps else p * x
        for p, x in zip(product.split([len(x) for x in stacks]), stacks, strict=True)
    ]


def as_matrix(x: Float[Tensor, "r *rest"], *, like: Float[Tensor, "r *rest"]) -> Float[Tensor, "r c"]:  # noqa: UP037, F821
    """[out, everything else], with the columns in the order in which `like` lies in memory: of it, a view.

    Another order of columns is as good, since orthogonalising commutes with it, and saves copies of kernels.
    """
    if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.flatten(1)


class Muon(Optimizer):
    """Muon on groups marked `hidden`, AdamW on the others; `parameter_groups` marks them.

    `betas` and `eps` are AdamW's, `momentum` (Nesterov) is Muon's. Weights and states stay in float32; the
    orthogonalisation runs in bfloat16 where the machine computes in it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] | list[float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        steps: int = 5,
        hidden: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "steps": steps,
            "hidden": hidden,
        }
        super().__init__(params, defaults)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A checkpoint's counts of steps lie on the CPU, and only a group that says `fused` has them moved."""
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            if "step" in state:
                state["step"] = state["step"].to(p.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["hidden"]:
                self._muon(parameters, group)
            elif parameters:
                self._adamw(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        gradients = [_gradient(p) for p in parameters]
        momenta = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
        updates = torch._foreach_lerp(  # pyright: ignore[reportPrivateImportUsage]
            gradients, momenta, group["momentum"]
        )
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p, update in zip(parameters, updates):
            alike[p.shape[0], p[0].numel()].append((p, as_matrix(update, like=p)))
        shapes = list(alike.values())
        on_cpu = parameters[0].device.type == "cpu"
        for some in [shapes] if on_cpu else [[members] for members in shapes]:  # a shape at a time, for the memory
            _turn(some, group)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        states = [self.state[p] for p in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [_gradient(p) for p in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _turn(shapes: list[list[tuple[Tensor, Tensor]]], group: dict[str, Any]) -> None:
    """Moves weights by their updates, made orthogonal; (weights, update) by shape."""
    dtype = torch.bfloat16 if computes_in_bf16(shapes[0][0][0].device) else torch.float32
    stacks = [torch.stack([update for _, update in members]) for members in shapes]
    for members, stack in zip(shapes, orthogonalise(*stacks, steps=group["steps"], dtype=dtype), strict=True):
        size = ADAM_SIZE * max(stack.shape[1:]) ** 0.5
        for (p, _), update in zip(members, stack, strict=True):
            weights = as_matrix(p, like=p)  # a view
            weights.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * size)


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad
