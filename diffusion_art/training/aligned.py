"""The shell of representation alignment: training as ever, with a second loss in the first part of the run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffusion_art.checkpoints import KEY
from diffusion_art.errors import UserError
from diffusion_art.models.alignment import Alignment
from diffusion_art.models.text_to_image import Network, TextToImage
from diffusion_art.tensors import Batch, Conditioning
from diffusion_art.training.module import DiffusionModule


class AlignedModule(DiffusionModule):
    """Adds the loss of `alignment` between a map of the backbone and the clean pictures, until its `until_step`.

    From there on a step is that of `DiffusionModule`, and the tower is not asked. The projection is optimised with the
    model and saved for a resume, beside the model's weights and not among them; nothing that paints hears of it.

    Raises:
        UserError: a checkpoint to resume whose projection is of another shape.
    """

    aligned = True

    def __init__(
        self, model: TextToImage, *args: Any, alignment: Alignment, compile_network: bool | str = False, **shell: Any
    ) -> None:
        super().__init__(model, *args, compile_network=compile_network, **shell)
        self.alignment = alignment
        with_map = model.backbone.with_map
        self._with_map = torch.compile(with_map) if compile_network == "whole" else with_map

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.global_step >= self.alignment.until_step:
            if self.global_step == self.alignment.until_step:
                self.log("train/alignment", math.nan)  # or Lightning would go on with the last value
            return self._known_to_all(super().training_step(batch, batch_idx))
        network, maps = self.watched()
        loss = self.training_loss(batch, network)
        aligned = self.alignment(maps[-1], batch.images)
        self.log("train/alignment", aligned.detach(), batch_size=len(batch))
        return loss + self.alignment.weight * aligned

    def watched(self) -> tuple[Network, list[Tensor]]:
        """The network, and a list to which each call of it adds the map to align."""
        maps: list[Tensor] = []

        def network(x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
            out, seen = self._with_map(x_t, t, cond, self.alignment.place)
            maps.append(seen)
            return out

        return network, maps

    def _known_to_all(self, loss: Tensor) -> Tensor:
        """The same loss. With several processes its graph names the projection, since a gradient of every weight is
        waited for; all zero, they move nothing that the model depends on.
        """
        if self.trainer.world_size == 1:
            return loss
        return loss + 0.0 * sum(p.sum() for p in self.alignment.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEY]["alignment"] = self.alignment.state_dict()
        checkpoint[KEY]["alignment_place"] = self.alignment.place

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        place = checkpoint[KEY].get("alignment_place", "middle")  # where all were before there was a choice
        if place != self.alignment.place:
            raise UserError(
                f"the checkpoint was trained with its {place} aligned, and here it is {self.alignment.place}. "
                f"Resume it with alignment.place={place}."
            )
        saved, own = checkpoint[KEY]["alignment"], self.alignment.state_dict()
        for name in own:
            if saved[name].shape != own[name].shape:
                raise UserError(
                    f"the checkpoint was trained with another alignment: its {name} has shape "
                    f"{list(saved[name].shape)}, and here it is {list(own[name].shape)}. Resume it with its own "
                    "alignment.tower and alignment.hidden."
                )
        self.alignment.load_state_dict(saved)
