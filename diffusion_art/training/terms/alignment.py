"""Representation alignment: a map of the backbone is asked to know of a picture what an image tower sees in it.

    h = resize(mlp(map(x_t)), grid of y),   y = tower(x_0)
    loss = mean_positions (1 - cos(h, y))  +  similarity_weight * mean_{i != j} (cos(h_i, h_j) - cos(y_i, y_j))^2

where h_i, y_i in the second term are averaged over the page: how alike two pictures of the batch are is to be the same
in the backbone as to the tower. The map is brought to the tower's grid after the projection.

Papers: Yu et al. 2024 (REPA), https://arxiv.org/abs/2410.06940; Tian et al. 2025 (U-REPA: the middle of a UNet, the
resizing and a loss on the likeness of samples), https://arxiv.org/abs/2503.18414; Wang et al. 2025 (HASTE: stopped
early, since a tower that helps a network find its way holds back one that has), https://arxiv.org/abs/2505.16792
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from diffusion_art.accel.layers import resized
from diffusion_art.accel.shares import copy_into
from diffusion_art.errors import UserError
from diffusion_art.models.image_tower import ImageTower
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.training.terms.term import Seen, Term, step_at


class Alignment(Term):
    """(a map of the backbone, the clean pictures) -> one loss for the batch, with a projection that is trained too.

    `maps` are the channels of the backbone's maps by place; `layer` is the place to align, `auto` the first of them.
    `hidden` are the channels of the projection. The loss counts `weight` times until `stop_at_fraction` of the run's
    `total_steps`. Where gradients are accumulated, or in several processes, the likeness compares the pictures of one
    part only.

    Raises:
        UserError: a place that the backbone does not have, a value out of range, or a run without an end.
    """

    name = "alignment"
    sees_pixels = True
    tower: ImageTower

    def __init__(
        self,
        *,
        maps: Mapping[str, int],
        tower: ImageTower,
        total_steps: int,
        layer: str = "middle",
        weight: float = 0.5,
        stop_at_fraction: float = 0.4,
        similarity_weight: float = 1.0,
        hidden: int = 256,
    ):
        super().__init__()
        _check(maps, layer, weight, stop_at_fraction, similarity_weight, hidden)
        self.place = next(iter(maps)) if layer == "auto" else layer
        self.weight = weight
        self.similarity_weight = similarity_weight
        self.until_step = step_at(
            stop_at_fraction, total_steps, key="alignment.stop_at_fraction", without="alignment=none"
        )
        self.projection = nn.Sequential(
            *(nn.Linear(maps[self.place], hidden), nn.SiLU()),
            *(nn.Linear(hidden, hidden), nn.SiLU()),
            nn.Linear(hidden, tower.dim),
        )
        self.hide("tower", tower)

    @property
    def features_of(self) -> ImageTower:
        return self.tower

    @classmethod
    def of_model(cls, model: TextToImage) -> dict[str, Any]:
        return {"maps": model.backbone.maps}

    def forward(self, seen: Seen) -> Float[Tensor, ""]:
        assert seen.map is not None, "the training step gives the map of `place`"
        return self.between(seen.map, seen.images, seen.features)

    def between(
        self,
        seen: Float[Tensor, "b c h w"],
        images: Float[Tensor, "b k h2 w2"],
        features: Float[Tensor, "b d g g"] | None = None,
    ) -> Float[Tensor, ""]:
        """Outside autocast but for the projection, in float32. The tower is asked where `features` are not known."""
        projected = rearrange(self.projection(rearrange(seen, "b c h w -> b h w c")), "b h w d -> b d h w")
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                wanted = self.tower(images) if features is None else features
            ours = resized(projected.float(), self.tower.side)
            apart = (1 - F.cosine_similarity(ours, wanted, dim=1)).mean()
            return apart + self.similarity_weight * relation_loss(ours.mean((2, 3)), wanted.mean((2, 3)))

    def saved(self) -> dict[str, Any]:
        return {"place": self.place, "weights": self.state_dict()}

    def resume(self, state: Mapping[str, Any]) -> None:
        if (place := state["place"]) != self.place:
            raise UserError(
                f"the checkpoint was trained with its {place} aligned, and here it is {self.place}. "
                f"Resume it with alignment.layer={place}."
            )
        saved, own = state["weights"], self.state_dict()
        for name in own:
            if saved[name].shape != own[name].shape:
                raise UserError(
                    f"the checkpoint was trained with another alignment: its {name} has shape "
                    f"{list(saved[name].shape)}, and here it is {list(own[name].shape)}. Resume it with its own "
                    "alignment.tower and alignment.hidden."
                )
        for name, value in saved.items():
            copy_into(own[name], value)


def _check(
    maps: Mapping[str, int],
    layer: str,
    weight: float,
    stop_at_fraction: float,
    similarity_weight: float,
    hidden: int,
) -> None:
    if not maps:
        raise UserError("this backbone has no maps to align: train it with alignment=none.")
    if layer != "auto" and layer not in maps:
        raise UserError(f"alignment.layer={layer} is not one of this backbone's: {', '.join(maps)}, or auto")
    if not weight > 0:
        raise UserError(f"alignment.weight={weight} must be positive; 0.5 is usual, and alignment=none is without")
    if not 0 < stop_at_fraction <= 1:
        raise UserError(
            f"alignment.stop_at_fraction={stop_at_fraction} is no share of a run: it is above 0 and at most 1; "
            "0.4 is usual"
        )
    if not similarity_weight >= 0:
        raise UserError(f"alignment.similarity_weight={similarity_weight} must be 0 or more; 1 is usual")
    if hidden < 1:
        raise UserError(f"alignment.hidden={hidden} must be at least 1; 256 is usual")


def relation_loss(ours: Float[Tensor, "b d"], wanted: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """mean_{i != j} (cos(ours_i, ours_j) - cos(wanted_i, wanted_j))^2; 0 for a single row."""
    likeness, its = (unit @ unit.T for unit in (F.normalize(ours), F.normalize(wanted)))
    pairs = len(ours) * (len(ours) - 1)
    return (likeness - its).square().fill_diagonal_(0).sum() / max(1, pairs)
