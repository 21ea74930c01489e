"""What is handed on: a model and how it paints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_art.devices import precision_named
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.errors import UserError
from diffusion_art.models.codec import Pixel, Unshuffle
from diffusion_art.models.text_encoder import OpenClipPretrained, OpenClipScratch
from diffusion_art.models.text_to_image import TextToImage
from diffusion_art.models.tokenizer import ClipTokenizer
from diffusion_art.models.vae import Vae
from diffusion_art.runs import Run


@dataclass(frozen=True)
class Painting:
    """A run's model with its sampler and guidance. Its weights are those that `dtype` can hold, in float32.

    Raises:
        UserError: a codec that other programs cannot undo, a text encoder that they do not have, or a weight that
            `dtype` cannot hold.
    """

    run: Run
    sampler: Sampler
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not isinstance(self.run.model.codec, Pixel | Unshuffle | Vae):
            raise UserError(
                f"{self.run.checkpoint} paints latents of {type(self.run.model.codec).__name__}, which only this "
                "program decodes: export it with format=file."
            )
        if not isinstance(encoder := self.run.model.text_encoder, OpenClipPretrained | OpenClipScratch):
            raise UserError(
                f"{self.run.checkpoint} has the text encoder {type(encoder).__name__}, and the folder could hold "
                "OpenClipPretrained or OpenClipScratch: export it with format=file."
            )

    @cached_property
    def model(self) -> TextToImage:
        model = self.run.model
        state = model.trainable_state()
        model.load_trainable_state(in_dtype(state, self.dtype, origin=self.run.checkpoint))
        return model

    @property
    def tokenizer(self) -> ClipTokenizer:
        encoder: Any = self.model.text_encoder
        return encoder.tokenizer

    @property
    def vae(self) -> Vae | None:
        """The VAE whose latents are painted, if it is no pixels that are."""
        codec = self.model.codec
        return codec if isinstance(codec, Vae) else None

    @property
    def unshuffle(self) -> int:
        """The side of the block of pixels that lies in the channels; 1: none."""
        return 1 if self.vae else self.model.codec.factor

    @property
    def guidance_scale(self) -> float:
        return self.run.guidance_scale()

    @property
    def guidance(self) -> dict[str, Any]:
        return self.run.guidance()

    @property
    def prompts(self) -> list[str]:
        return self.run.prompts or ["a red square on white"]

    def settings_of(self, part: str) -> Mapping[str, Any]:
        """`schedule` or `prediction` of the model: its class's name and the arguments that the run's config gives."""
        given = self.run.config["model"][part]
        name = type(getattr(self.model, part)).__name__
        return {"name": name, **{key: value for key, value in given.items() if not key.startswith("_")}}


def in_dtype(tensors: Mapping[str, Tensor], dtype: torch.dtype, *, origin: Path) -> dict[str, Tensor]:
    """Weights in the precision of a file.

    Raises:
        UserError: one of them is too large for it.
    """
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    for name, value in cast.items():
        if not value.isfinite().all():
            told = precision_named(str(dtype).removeprefix("torch."))
            raise UserError(f"{name} of {origin} is not finite in {told}: export it with dtype=fp32.")
    return cast
