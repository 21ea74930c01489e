"""At the end of a run on the painter's pictures: does the model paint what it is asked for?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_art.callbacks.sample_grid import painting, paints
from diffusion_art.diffusion.guidance import tempering
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.evaluation.caption_following import (
    caption_following,
    painter_captions,
    save_json,
    summary,
)
from diffusion_art.sources.base import Source
from diffusion_art.sources.painter import Painter

log = logging.getLogger(__name__)


class CaptionFollowing(Callback):
    """Paints unseen captions with the averaged weights, has the judge read them, prints and saves the shares.

    `source` is the painter whose captions the run was trained on, so that none of them is asked again; a run on other
    pictures, or on shards whose source is not given, says that it is not measured. The result is
    `caption_following.json` in `folder`. A run that was stopped early is not measured either.
    """

    def __init__(
        self,
        *,
        folder: str,
        source: Source | None,
        sampler: Sampler,
        guidance_scale: float = 1.0,
        guidance: dict[str, Any] | None = None,
        count: int = 240,
        held_out_count: int = 96,
        batch_size: int = 48,
    ) -> None:
        self.folder = Path(folder)
        self.source = source
        self.sampler = sampler
        self.guidance_scale = guidance_scale
        self.guidance = tempering(**(guidance or {}))
        self.count = count
        self.held_out_count = held_out_count
        self.batch_size = batch_size

    @property
    def asked(self) -> int:
        """Pictures to paint at the end of a run; 0 where it is not measured."""
        return self.count + self.held_out_count if isinstance(self.source, Painter) else 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not isinstance(self.source, Painter):
            log.info(
                "caption following is not measured: it asks for the painter's styles and colours, and these pictures "
                "are others"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(self.source, Painter) or not paints(trainer) or trainer.global_step < trainer.max_steps:
            return
        log.info("measuring caption following on %d unseen captions", self.asked)
        with painting(trainer, pl_module):
            if not trainer.is_global_zero:
                return
            result = caption_following(
                self._generate(pl_module),
                count=self.count,
                held_out_count=self.held_out_count,
                batch_size=self.batch_size,
                exclude=painter_captions(self.source),
            )
        result |= {
            "step": trainer.global_step,
            "weights": "ema",
            "guidance_scale": self.guidance_scale,
            "guidance": self.guidance,
            "sampler": self.sampler.describe(),
        }
        save_json(result, self.folder / "caption_following.json")
        log.info("%s", summary(result))

    def _generate(self, pl_module: LightningModule) -> Callable[[list[str], list[int]], torch.Tensor]:
        model: Any = pl_module.model

        def generate(captions: list[str], seeds: list[int]) -> torch.Tensor:
            return model.generate(
                captions,
                seeds=seeds,
                sampler=self.sampler,
                guidance_scale=self.guidance_scale,
                **self.guidance,
                batch_size=self.batch_size,
            )

        return generate
