"""The Frechet distance (FID's, in features of one's choice)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion_art.errors import UserError
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.distances import check_count, frechet_distance, frechet_error, least_count
from diffusion_art.evaluation.metrics.metric import Figure, InFeatures, at_least
from diffusion_art.evaluation.networks import Networks
from diffusion_art.evaluation.reference import check_there
from diffusion_art.evaluation.subject import Subject


@dataclass(kw_only=True, eq=False)
class FrechetDistance(InFeatures):
    """How far painted pictures are from real ones, as two Gaussians in a network's features.

    `deviation` is that of the distance over `resamples` bootstrap samples of both sides. Few pictures make the
    distance itself too large, which the error bar does not tell.

    Paper: Heusel et al. 2017, https://arxiv.org/abs/1706.08500
    """

    figures = (Figure("fd", "FD", "lower", error="deviation"),)

    resamples: int = 10

    def __post_init__(self) -> None:
        at_least(2, pictures=self.pictures)

    def check(self, networks: Networks) -> None:
        check_count(self.pictures, self.network(networks).dim)

    def check_data(self, data: RunData, networks: Networks) -> None:
        real, least = data.real(), least_count(self.network(networks).dim)
        there = real.there
        if there is not None and there < least:
            raise UserError(
                f"fd takes at least {least:,} real pictures, and there are {there:,}. Ask for kid in its place, which "
                f"few pictures do not bias: 'metrics=[kid]' pictures={there}."
            )
        check_there(real, self.pictures)

    def measure(self, subject: Subject) -> dict[str, Any]:
        self.check_data(subject.data, subject.networks)
        told = {"features": self.network(subject.networks).name, "pictures": self.pictures}
        return self.between(*self.sides(subject)) | told

    def between(self, real: Tensor, fake: Tensor) -> dict[str, Any]:
        """{"fd": ..., "deviation": ...} of two sets of features, n d and m d."""
        result: dict[str, Any] = {"fd": frechet_distance(real, fake)}
        if self.resamples > 1:
            generator = torch.Generator().manual_seed(0)
            result |= {"deviation": frechet_error(real, fake, self.resamples, generator), "resamples": self.resamples}
        return result
