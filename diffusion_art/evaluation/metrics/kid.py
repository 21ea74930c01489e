"""The kernel distance (KID)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffusion_art.evaluation.distances import kernel_distance, kernel_error, polynomial_kernels
from diffusion_art.evaluation.metrics.metric import Figure, InFeatures, at_least
from diffusion_art.evaluation.reference import check_there
from diffusion_art.evaluation.subject import Subject


@dataclass(kw_only=True, eq=False)
class KernelDistance(InFeatures):
    """How far painted pictures are from real ones, by a kernel in a network's features; few pictures do not bias it.

    `kid` is the mean over random subsets and `deviation` that of one subset's estimate, None where only one subset
    fits. `error` is the standard error of the whole, by the jackknife: leaving out each picture in turn.

    Paper: Binkowski et al. 2018, https://arxiv.org/abs/1801.01401
    """

    figures = (Figure("kid", "KID", "lower", error="error"),)
    sliced = (32, Figure("kid", "KID", "lower"))

    subset_size: int = 256
    subsets: int = 100

    def __post_init__(self) -> None:
        at_least(2, pictures=self.pictures)

    def measure(self, subject: Subject) -> dict[str, Any]:
        check_there(subject.real, self.pictures)
        result = self.between(*self.sides(subject))
        return result | {"features": self.features, "pictures": self.pictures}

    def between(self, real: Tensor, fake: Tensor) -> dict[str, Any]:
        """{"kid": ..., "deviation": ..., "error": ...} of two sets of features, n d and m d."""
        size = min(self.subset_size, len(real), len(fake))
        mean, deviation = kernel_distance(real, fake, subset_size=size, subsets=self.subsets)
        error = kernel_error(*polynomial_kernels(real, fake))
        return {"kid": mean, "deviation": deviation, "error": error, "subset_size": size}

    def summary(self, result: Mapping[str, Any]) -> str:
        alone = (
            ""
            if result.get("deviation") is not None
            else "; no deviation between random subsets, as there are pictures for one only"
        )
        return super().summary(result) + alone

    def of_rows(self, subject: Subject, rows: Sequence[int]) -> float:
        real, fake = (side[list(rows)] for side in self.sides(subject))
        return kernel_distance(real, fake, subset_size=len(rows), subsets=1)[0]
