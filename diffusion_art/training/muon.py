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
together (`accel/muon_stacks.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from diffusion_art.accel.lists import divide, lerp, lerped
from diffusion_art.accel.muon_stacks import move
from diffusion_art.accel.orthogonalise import as_matrix
from diffusion_art.accel.shares import as_shared, copy_into, gathered, is_shared, own
from diffusion_art.devices import computes_in_bf16


class Muon(Optimizer):
    """Muon on groups marked `hidden`, AdamW on the others; `parameter_groups` marks them.

    `betas` and `eps` are AdamW's, `momentum` (Nesterov) is Muon's. Weights and states stay in float32; the
    orthogonalisation runs in bfloat16 where the machine computes in it.

    On a CUDA device a step divides gradients by `grad_scale` and leaves weights as they are while `found_inf` is 1,
    where a caller has set these attributes to device scalars, as with torch's fused optimisers (`optim.py`). Momenta of
    hidden matrices do hear of that step's gradients, so `found_inf` has to stay 1 from then on.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

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
        gradients = [own(_gradient(p)) for p in parameters]
        if self.grad_scale is not None:
            divide(gradients, self.grad_scale)
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [own(self.state[p]["momentum"]) for p in parameters]
        lerp(momenta, gradients, 1 - group["momentum"])
        updates = lerped(gradients, momenta, group["momentum"])
        dtype = torch.bfloat16 if computes_in_bf16(parameters[0].device) else torch.float32
        settings = {"lr": group["lr"], "weight_decay": group["weight_decay"], "steps": group["steps"], "dtype": dtype}
        if any(is_shared(p) for p in parameters):
            for p, update in zip(parameters, updates):
                _move_shared(p, update, **settings)
            return
        weights = [as_matrix(p, like=p) for p in parameters]  # views
        updates = [as_matrix(update, like=p) for p, update in zip(parameters, updates)]
        move(weights, updates, **settings, found_inf=self.found_inf)

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
            grad_scale=self.grad_scale,
            found_inf=self.found_inf,
        )


def _move_shared(p: Any, update: Tensor, **settings: Any) -> None:
    """A matrix of which each process has rows is orthogonalised as a whole, one at a time, by all of them alike."""
    weight, whole = gathered(p).clone(), gathered(as_shared(update, p))
    move([as_matrix(weight, like=weight)], [as_matrix(whole, like=weight)], **settings)
    copy_into(p, weight)


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad
