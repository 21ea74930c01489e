"""What a model is measured with at each of its points: the same prompts, noise, pictures and sampler for all."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M
from diffusion_art.evaluation.caption_following import caption_following
from diffusion_art.evaluation.distances import frechet_distance, kernel_distance
from diffusion_art.evaluation.features import load_features
from diffusion_art.evaluation.reference import Reference, painted
from diffusion_art.evaluation.x0_error import x0_error
from diffusion_art.models.text_to_image import TextToImage

SEEN, HELD_OUT = 1008, 96  # prompts: 63 of each style; of combinations kept from training
REAL = 2048  # paintings to compare with
VALIDATION = 256
SHARES = ("style", "palette", "held_out")


class Yardstick:
    """Caption following on fresh prompts, FD and KID of the pictures painted for it, and the x_0 error."""

    def __init__(self, *, size: int, features: str, num_steps: int) -> None:
        self.size = size
        self.features = load_features(features)
        self.sampler = DPMSolverPP2M(num_steps=num_steps)

    @cached_property
    def real(self) -> Tensor:
        return self.features(painted(REAL, image_size_px=self.size).images)

    @cached_property
    def validation(self) -> Reference:
        return painted(VALIDATION, image_size_px=self.size, seed=1)

    def floor(self) -> dict[str, float]:
        """FD and KID of as many fresh paintings: what a perfect model would score."""
        return self.distances(painted(SEEN, image_size_px=self.size, seed=2).images)

    def distances(self, images: Tensor) -> dict[str, float]:
        fake = self.features(images)
        kid, deviation = kernel_distance(self.real, fake)
        return {"fd": frechet_distance(self.real, fake), "kid": kid, "kid_deviation": deviation}

    def __call__(self, model: TextToImage, *, guidance_scale: float) -> dict[str, Any]:
        """Everything about the model's pictures, painted in the precision it is called in."""
        images: list[Tensor] = []

        def generate(captions: list[str], seeds: list[int]) -> Tensor:
            how = {"sampler": self.sampler, "guidance_scale": guidance_scale, "batch_size": len(captions)}
            images.append(model.generate(captions, seeds=seeds, **how))
            return images[-1]

        following = caption_following(generate, count=SEEN, held_out_count=HELD_OUT, batch_size=96)
        with torch.autocast(model.device.type, enabled=False):
            distances = self.distances(torch.cat(images)[:SEEN])
            error = x0_error(model, self.validation.images, self.validation.captions)
        return {
            **{name: following[name] for name in SHARES},
            "by_style": {style: shares["style"] for style, shares in following["by_style"].items()},
            **distances,
            "val_x0": error["val_x0"],
            "by_log_snr": error["by_log_snr"],
            "features": self.features.name,
            "sampler": self.sampler.describe(),
            "guidance_scale": guidance_scale,
        }
