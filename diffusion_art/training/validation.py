"""Validation: the averaged weights' losses on the same pictures, times and noise at each visit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_art.devices import widest
from diffusion_art.tensors import Batch
from diffusion_art.training.averages.ema import Ema
from diffusion_art.training.plain_steps import AnyStep
from diffusion_art.training.step import TrainingStep

THIRDS = ("clean", "middle", "noisy")  # t in [0, 1/3), [1/3, 2/3), [2/3, 1]


class Validation:
    """One visit. From its beginning to its end the model holds the averaged weights.

    Losses are added up in the widest float of the device, those of each third of the times apart.
    """

    def __init__(self, step: AnyStep, ema: Ema) -> None:
        self._step = step
        self._by_thirds = isinstance(step, TrainingStep)
        device = step.model.device
        self._sums = torch.zeros(2, len(THIRDS), dtype=widest(device), device=device)
        self._averaged = ema.averaged()
        self._averaged.__enter__()

    def see(self, batch: Batch) -> None:
        example = self._step.validated(batch)
        losses = self._step(example).per_picture.to(self._sums.dtype)  # pyright: ignore[reportArgumentType]
        third = (example.t * len(THIRDS)).long().clamp(max=len(THIRDS) - 1)
        self._sums[0].index_add_(0, third, losses)
        self._sums[1].index_add_(0, third, torch.ones_like(losses))

    def end(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The mean `loss`, and of noised pictures `loss_THIRD` of each third that had some; `reduce` adds up what all
        processes have.
        """
        self.leave()
        losses, counts = reduce(self._sums)
        means = {"loss": float(losses.sum() / counts.sum().clamp(min=1))}
        thirds = zip(THIRDS, losses.tolist(), counts.tolist()) if self._by_thirds else ()
        return means | {f"loss_{name}": total / count for name, total, count in thirds if count}

    def leave(self) -> None:
        """The model has the weights again that are trained."""
        self._averaged.__exit__(None, None, None)
