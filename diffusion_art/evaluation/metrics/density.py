"""Density, by nearest neighbours."""

from __future__ import annotations

from diffusion_art.evaluation.metrics.by_neighbours import ByNeighbours
from diffusion_art.evaluation.metrics.metric import Figure
from diffusion_art.evaluation.neighbours import Neighbours


class Density(ByNeighbours):
    """How densely real pictures surround the painted ones: precision that outliers among the real do not inflate;
    about 1 where both sides are alike.

    Paper: Naeem et al. 2020, https://arxiv.org/abs/2002.09797
    """

    key = "density"
    figures = (Figure("density", "density", "higher", error="error"),)

    def of(self, neighbours: Neighbours) -> float:
        return neighbours.density
