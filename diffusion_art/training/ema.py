"""Exponential moving average of the trainable weights, and the one door through which it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """theta_ema <- d theta_ema + (1 - d) theta, with d = min(decay, (1 + n) / (10 + n)) at update n.

    The warm-up lets the average forget the random start quickly. Only parameters that require gradients are
    shadowed, in fp32; a frozen text tower is neither copied nor averaged.

    `decay=0` keeps no memory: the average is the current weights.
    """

    def __init__(self, module: nn.Module, *, decay: float = 0.9999, warmup: bool = True) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"ema decay is from 0 to below 1, not {decay}")
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.shadow = {name: p.detach().float().clone() for name, p in self._parameters.items()}
        self._swapped = False

    @torch.no_grad()
    def update(self) -> None:
        """Take the current weights into the average. Called once per optimiser step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        self.updates += 1
        self._follow_device()
        shadows, weights = list(self.shadow.values()), [p.detach().float() for p in self._parameters.values()]
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            shadows, weights, 1.0 - decay
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the module holds the averaged weights; after it, bit for bit what it held before."""
        if self._swapped:
            raise RuntimeError("the averaged weights are in place already")
        self._follow_device()
        raw = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._load(self.shadow)
        self._swapped = True
        try:
            yield
        finally:
            self._load(raw)
            self._swapped = False

    @torch.no_grad()
    def _load(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])

    def _follow_device(self) -> None:
        for name, parameter in self._parameters.items():
            if self.shadow[name].device != parameter.device:
                self.shadow[name] = self.shadow[name].to(parameter.device)

    def state_dict(self) -> dict:
        return {"updates": self.updates, "shadow": dict(self.shadow)}

    def load_state_dict(self, state: dict) -> None:
        self.updates = int(state["updates"])
        missing = self.shadow.keys() ^ state["shadow"].keys()
        if missing:
            raise KeyError(f"the averaged weights do not fit this model: {sorted(missing)[:3]} ...")
        for name, value in state["shadow"].items():
            self.shadow[name].copy_(value)
