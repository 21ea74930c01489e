"""Coverage, by nearest neighbours."""

from __future__ import annotations

from diffusion_art.evaluation.metrics.by_neighbours import ByNeighbours
from diffusion_art.evaluation.metrics.metric import Figure
from diffusion_art.evaluation.neighbours import Neighbours


class Coverage(ByNeighbours):
    """How many real pictures have a painted one among their neighbours: recall that outliers do not inflate.

    Paper: Naeem et al. 2020, https://arxiv.org/abs/2002.09797
    """

    key = "coverage"
    figures = (Figure("coverage", "coverage", "higher", error="error", percent=True),)

    def of(self, neighbours: Neighbours) -> float:
        return neighbours.coverage
