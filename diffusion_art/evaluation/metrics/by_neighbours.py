"""What precision, recall, density and coverage share: both sides' features, and their neighbours."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch

from diffusion_art.evaluation.metrics.metric import AgainstReal, at_least
from diffusion_art.evaluation.neighbours import Neighbours
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.reference import check_there
from diffusion_art.evaluation.subject import Subject

HALVES = 10  # random halves of the pictures behind an error bar


class ByNeighbours(AgainstReal):
    """A share of pictures that lie among those of the other side, in a network's features.

    `error` is the standard error by random halves: the spread of the figure over halves of both sides. Halves of one
    sample overlap, so they spread less than samples of their size do: as much as samples of the whole size.
    """

    key: ClassVar[str]

    def __init__(self, *, pictures: int = 1024, features: str = "efficientnet_lite0", nearest: int = 5) -> None:
        at_least(1, nearest=nearest)
        at_least(2 * nearest + 2, pictures=pictures)
        self.pictures = pictures
        self.features = features
        self.nearest = nearest

    @abstractmethod
    def of(self, neighbours: Neighbours) -> float:
        """The figure itself."""

    def check(self, networks: Networks) -> None:
        networks.features(self.features)

    def measure(self, subject: Subject) -> dict[str, Any]:
        check_there(subject.real, self.pictures)
        features = subject.networks.features(self.features)
        sides = subject.real_features(features, self.pictures), subject.painted_features(features, self.pictures)
        value = self.of(Neighbours.of(*sides, nearest=self.nearest))
        generator, halves = torch.Generator().manual_seed(0), []
        for _ in range(HALVES):
            rows = (torch.randperm(len(side), generator=generator)[: len(side) // 2] for side in sides)
            parts = (side[chosen] for side, chosen in zip(sides, rows))
            halves.append(self.of(Neighbours.of(*parts, nearest=self.nearest)))
        error = float(torch.tensor(halves, dtype=torch.float64).std())
        shared = {"nearest": self.nearest, "features": self.features, "pictures": self.pictures}
        return {self.key: value, "error": error} | shared
