"""Precision, recall, density and coverage of two sets of features, by balls round every picture.

The ball of a picture reaches to its k-th nearest neighbour in its own set; all balls together stand for the region
where pictures of that set lie.

    precision  share of painted pictures inside any real ball          are they like real ones?
    recall     share of real pictures inside any painted ball          is everything painted that there is?
    density    real balls round a painted picture, on average, over k  precision that one outlier does not spoil
    coverage   share of real balls with a painted picture inside       recall that one outlier does not spoil

Papers: Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991; Naeem et al. 2020, https://arxiv.org/abs/2002.09797
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion_art.errors import UserError


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
