"""Recall, by nearest neighbours."""

from __future__ import annotations

from diffusion_art.evaluation.metrics.by_neighbours import ByNeighbours
from diffusion_art.evaluation.metrics.metric import Figure
from diffusion_art.evaluation.neighbours import Neighbours


class Recall(ByNeighbours):
    """How many real pictures look like something painted: whether all kinds of pictures are painted.

    Paper: Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991
    """

    key = "recall"
    figures = (Figure("recall", "recall", "higher", error="error", percent=True),)

    def of(self, neighbours: Neighbours) -> float:
        return neighbours.recall
