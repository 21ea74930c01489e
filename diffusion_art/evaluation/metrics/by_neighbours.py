"""Nearest neighbours in features: near-duplicates, and how two sets of pictures lie to each other.

The ball of a picture reaches to its k-th nearest neighbour in its own set; all balls together stand for the region
where pictures of that set lie.

    precision  share of painted pictures inside any real ball          are they like real ones?
    recall     share of real pictures inside any painted ball          is everything painted that there is?
    density    real balls round a painted picture, on average, over k  precision that one outlier does not spoil
    coverage   share of real balls with a painted picture inside       recall that one outlier does not spoil

Papers: Kynkaanniemi et al. 2019 (precision, recall), https://arxiv.org/abs/1904.06991; Naeem et al. 2020 (density,
coverage), https://arxiv.org/abs/2002.09797
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diffusion_art.errors import UserError
from diffusion_art.evaluation.metrics.metric import Figure, InFeatures, at_least
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


ROWS = 2048  # of distances at a time


def nearest(
    x: Float[Tensor, "m d"], y: Float[Tensor, "n d"], count: int
) -> tuple[Float[Tensor, "m {count}"], Int[Tensor, "m {count}"]]:
    """The distances 1 - cos from each of `x` to its nearest in `y`, both of unit length, and where those are."""
    found = [(part @ y.T).topk(count, dim=1) for part in x.split(ROWS)]
    return torch.cat([1 - part.values for part in found]).clamp(min=0), torch.cat([part.indices for part in found])


@dataclass(frozen=True)
class Pair:
    """Two pictures of one set by their places, and how far apart they are: 1 - cos of their features."""

    first: int
    second: int
    distance: float


def near_duplicates(features: Float[Tensor, "n d"], *, within: float) -> list[Pair]:
    """All pairs of pictures nearer than `within`, the nearest first.

    How near is near depends on the network: look at the pairs, and at the distances of each picture to its nearest.
    """
    unit = F.normalize(features)
    pairs = []
    for start, rows in zip(range(0, len(unit), ROWS), unit.split(ROWS)):
        distances = (1 - rows @ unit.T).clamp(min=0)
        first, second = (distances < within).nonzero().T
        later = second > first + start  # each pair once, and none with itself
        chosen = first[later], second[later]
        pairs += [Pair(a + start, b, d) for a, b, d in zip(*(each.tolist() for each in (*chosen, distances[chosen])))]
    return sorted(pairs, key=lambda pair: pair.distance)


def to_nearest_other(features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """From each picture to the nearest other one of its set, 1 - cos."""
    unit = F.normalize(features)
    return nearest(unit, unit, 2)[0][:, 1]  # the first is the picture itself, or its equal


@dataclass(frozen=True)
class Neighbours:
    """Distances between real and painted pictures, and the radius of the ball round each."""

    across: Float[Tensor, "n m"]  # from each real picture to each painted one
    real_radii: Float[Tensor, " n"]
    painted_radii: Float[Tensor, " m"]
    nearest: int

    @staticmethod
    def of(real: Float[Tensor, "n d"], painted: Float[Tensor, "m d"], *, nearest: int) -> Neighbours:
        """UserError where a set has no k-th neighbour."""
        if min(len(real), len(painted)) <= nearest:
            raise UserError(
                f"nearest={nearest} asks for more than {nearest} pictures a side, and there are "
                f"{min(len(real), len(painted))}: give pictures={nearest + 1} or more."
            )
        return Neighbours(torch.cdist(real, painted), _radii(real, nearest), _radii(painted, nearest), nearest)

    @property
    def precision(self) -> float:
        return float((self.across < self.real_radii[:, None]).any(0).double().mean())

    @property
    def recall(self) -> float:
        return float((self.across < self.painted_radii).any(1).double().mean())

    @property
    def density(self) -> float:
        return float((self.across < self.real_radii[:, None]).double().sum(0).mean() / self.nearest)

    @property
    def coverage(self) -> float:
        return float((self.across.min(1).values < self.real_radii).double().mean())


def _radii(features: Float[Tensor, "n d"], nearest: int) -> Float[Tensor, " n"]:
    return torch.cdist(features, features).kthvalue(nearest + 1).values  # the first is the picture itself
