"""A perceptual loss: x_0_hat is to be the picture x_0 to a frozen network, and not only pixel by pixel.

    f_l = a layer's map, its features scaled to unit length at each position
    near_i = sum_l mean_positions |f_l(x_0_hat) - f_l(x_0)|^2
    kind_i = mean_positions (1 - cos(f_last(x_0_hat), f_last(x_0)))
    loss   = mean_i [t_i <= max_t] (near_i + semantics * kind_i)

Earlier layers judge strokes and textures, as LPIPS does with a network and weights of its own; the last one judges what
is there, as features of DINO do. Where noise hides the picture many pictures are possible and x_0_hat is their mean;
to make that look sharp would narrow the choice, so only low noise counts.

Papers: Zhang et al. 2018 (LPIPS), https://arxiv.org/abs/1801.03924; Ma et al. 2026 (PixelGen: LPIPS and DINO on x_0_hat
of pixel diffusion at low noise, weights 0.1 and 0.01), https://arxiv.org/abs/2602.02493; Photoroom 2026 (PRX in 24
hours: the same weights, at all noise levels), https://huggingface.co/blog/Photoroom/prx-part3
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion_art.errors import UserError
from diffusion_art.models.image_tower import ImageTower
from diffusion_art.training.terms.term import Seen, Term, step_at

_START = "perceptual.start_at_fraction"


class Perceptual(Term):
    """Gradients pass through the tower and the codec's decoder into x_0_hat, of every picture with t <= `max_t`.

    `layers` are the tower's earlier layers, `semantics` is the weight of its last one among them. The loss counts
    `weight` times from `start_at_fraction` of the run's `total_steps` on.

    Raises:
        UserError: a weight, time or fraction out of range, a start in a run without an end, or a layer that the tower
            does not have.
    """

    name = "perceptual"
    sees_pixels = True
    tower: ImageTower

    def __init__(
        self,
        *,
        tower: ImageTower,
        weight: float = 0.1,
        layers: Sequence[int] = (1, 2, 3),
        semantics: float = 0.1,
        max_t: float = 0.7,
        start_at_fraction: float = 0.0,
        total_steps: int = -1,
    ) -> None:
        super().__init__()
        if not weight > 0:
            raise UserError(f"perceptual.weight={weight} must be positive; 0.1 is usual, perceptual=none is without.")
        if not semantics >= 0 or not (layers or semantics):
            raise UserError(f"perceptual.semantics={semantics} must be 0 or more, and above 0 without layers.")
        if not 0 <= start_at_fraction < 1:
            raise UserError(
                f"{_START}={start_at_fraction} must be at least 0 and below 1; at 0 it is on from the start."
            )
        if not 0 < max_t <= 1:
            raise UserError(f"perceptual.max_t={max_t} must be above 0 and at most 1; at 1 all times count.")
        self.weight = weight
        self.layers = list(layers)
        self.semantics = semantics
        self.max_t = max_t
        if start_at_fraction:
            self.from_step = step_at(start_at_fraction, total_steps, key=_START, without=f"{_START}=0")
        self.hide("tower", tower)
        with torch.no_grad():  # a layer that is not there is found before training
            tower.maps(torch.zeros(1, 3, 32, 32), self.layers)

    def forward(self, seen: Seen) -> Float[Tensor, ""]:
        counts = seen.t <= self.max_t
        if counts.device.type == "cpu":  # where choosing rows costs no waiting
            apart = self.distances(seen.x_0_hat()[counts], seen.images[counts])
        else:
            apart = counts * self.distances(seen.x_0_hat(), seen.images)
        return apart.sum() / len(counts)

    def distances(self, x_0_hat: Float[Tensor, "b 3 h w"], x_0: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """near + semantics * kind of each picture, outside autocast."""
        with torch.autocast(x_0.device.type, enabled=False):
            with torch.no_grad():
                wanted = self.tower.maps(x_0, self.layers)
            ours = self.tower.maps(x_0_hat.float(), self.layers)
            *near, kind = (_apart(one, other) for one, other in zip(ours, wanted, strict=True))
            return sum(near, start=self.semantics / 2 * kind)  # |a - b|^2 of unit vectors is 2 (1 - cos)


def _apart(one: Float[Tensor, "b d g g"], other: Float[Tensor, "b d g g"]) -> Float[Tensor, " b"]:
    """The squared distance of unit features, a mean over positions."""
    return (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(1).mean((1, 2))
