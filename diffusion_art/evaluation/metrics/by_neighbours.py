"""Precision, recall, density and coverage: how two sets of pictures lie among each other in a network's features.

Papers: Kynkaanniemi et al. 2019 (precision, recall), https://arxiv.org/abs/1904.06991; Naeem et al. 2020 (density,
coverage), https://arxiv.org/abs/2002.09797
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from diffusion_art.evaluation.metrics.metric import Figure, InFeatures, at_least
from diffusion_art.evaluation.neighbours import Neighbours
from diffusion_art.evaluation.reference import check_there
from diffusion_art.evaluation.subject import Subject

HALVES = 10  # random halves of the pictures behind an error bar


@dataclass(kw_only=True, eq=False)
class ByNeighbours(InFeatures):
    """A share of pictures that lie among those of the other side.

    `error` is the standard error by random halves: the spread of the figure over halves of both sides. Halves of one
    sample overlap, so they spread less than samples of their size do: as much as samples of the whole size.
    """

    key: ClassVar[str]
    nearest: int = 5

    def __post_init__(self) -> None:
        at_least(1, nearest=self.nearest)
        at_least(2 * self.nearest + 2, pictures=self.pictures)

    def of(self, neighbours: Neighbours) -> float:
        """The figure itself."""
        return getattr(neighbours, self.key)

    def measure(self, subject: Subject) -> dict[str, Any]:
        check_there(subject.real, self.pictures)
        sides = self.sides(subject)
        value = self.of(Neighbours.of(*sides, nearest=self.nearest))
        generator, halves = torch.Generator().manual_seed(0), []
        for _ in range(HALVES):
            rows = (torch.randperm(len(side), generator=generator)[: len(side) // 2] for side in sides)
            parts = (side[chosen] for side, chosen in zip(sides, rows))
            halves.append(self.of(Neighbours.of(*parts, nearest=self.nearest)))
        error = float(torch.tensor(halves, dtype=torch.float64).std())
        shared = {"nearest": self.nearest, "features": self.features, "pictures": self.pictures}
        return {self.key: value, "error": error} | shared


class Precision(ByNeighbours):
    """How many painted pictures look like real ones: lie within reach of a real picture's neighbours."""

    key = "precision"
    figures = (Figure("precision", "precision", "higher", error="error", percent=True),)


class Recall(ByNeighbours):
    """How many real pictures look like something painted: whether all kinds of pictures are painted."""

    key = "recall"
    figures = (Figure("recall", "recall", "higher", error="error", percent=True),)


class Density(ByNeighbours):
    """How densely real pictures surround the painted ones: precision that outliers among the real do not inflate;
    about 1 where both sides are alike.
    """

    key = "density"
    figures = (Figure("density", "density", "higher", error="error"),)


class Coverage(ByNeighbours):
    """How many real pictures have a painted one among their neighbours: recall that outliers do not inflate."""

    key = "coverage"
    figures = (Figure("coverage", "coverage", "higher", error="error", percent=True),)
