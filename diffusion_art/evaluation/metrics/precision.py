"""Precision, by nearest neighbours."""

from __future__ import annotations

from diffusion_art.evaluation.metrics.by_neighbours import ByNeighbours
from diffusion_art.evaluation.metrics.metric import Figure
from diffusion_art.evaluation.neighbours import Neighbours


class Precision(ByNeighbours):
    """How many painted pictures look like real ones: lie within reach of a real picture's neighbours.

    Paper: Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991
    """

    key = "precision"
    figures = (Figure("precision", "precision", "higher", error="error", percent=True),)

    def of(self, neighbours: Neighbours) -> float:
        return neighbours.precision
