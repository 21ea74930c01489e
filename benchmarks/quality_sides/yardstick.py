"""What a model is measured with at each of its points: the same prompts, noise, pictures and sampler for all."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from diffusion_art.config import config_dir, plain
from diffusion_art.diffusion.samplers.dpm_solver import DPMSolverPP2M
from diffusion_art.evaluation.caption_following import Generate
from diffusion_art.evaluation.data import RunData
from diffusion_art.evaluation.metrics import metrics_of
from diffusion_art.evaluation.networks import Networks, features_of
from diffusion_art.evaluation.reference import painted
from diffusion_art.evaluation.subject import Subject
from diffusion_art.models.text_to_image import TextToImage

SEEN, HELD_OUT = 1008, 96  # prompts: 63 of each style; of combinations kept from training
REAL = 2048  # paintings to compare with
VALIDATION = 256
SHARES = ("style", "palette", "held_out")
NAMES = ("caption_following", "fd", "kid", "val_x0")


class Yardstick:
    """The metrics of `evaluate`: caption following on fresh prompts, FD and KID of its pictures, and the x_0 error."""

    def __init__(self, *, size: int, features: str, num_steps: int) -> None:
        config = OmegaConf.load(config_dir() / "evaluate.yaml")
        config.merge_with(
            {"features": features, "pictures": REAL, "val_pictures": VALIDATION}
            | {"count": SEEN, "held_out_count": HELD_OUT, "metric": {"fd": {"resamples": 0}}}
        )
        self.metrics = metrics_of(plain(config.metric), NAMES)
        self.networks = Networks()
        self.features = self.networks.features(features)
        self.sampler = DPMSolverPP2M(num_steps=num_steps)
        painter = {"_target_": "diffusion_art.sources.painter.Painter", "image_size_px": size}
        self.data = RunData({"data": {"source": painter}, "model": {"image_size_px": size}})
        self.size = size

    def floor(self) -> dict[str, float]:
        """FD and KID of as many fresh paintings: what a perfect model would score."""
        return self._distances(self.features(painted(SEEN, image_size_px=self.size, seed=2).images))

    def __call__(self, model: TextToImage, *, guidance_scale: float) -> dict[str, Any]:
        """Everything about the model's pictures, painted in the precision it is called in."""
        images: list[Tensor] = []

        def generate(captions: list[str], seeds: list[int]) -> Tensor:
            how = {"sampler": self.sampler, "guidance_scale": guidance_scale, "batch_size": len(captions)}
            images.append(model.generate(captions, seeds=seeds, **how))
            return images[-1]

        subject = partial(self._subject, model, generate)
        following = self.metrics["caption_following"].measure(subject(batch_size=96))
        with torch.autocast(model.device.type, enabled=False):
            distances = self._distances(self.features(torch.cat(images)[:SEEN]))
            error = self.metrics["val_x0"].measure(subject(batch_size=64))
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

    def _distances(self, fake: Tensor) -> dict[str, float]:
        real = self._real()
        kid = self.metrics["kid"].between(real, fake)
        return {
            "fd": self.metrics["fd"].between(real, fake)["fd"],
            "kid": kid["kid"],
            "kid_deviation": kid["deviation"],
        }

    def _real(self) -> Tensor:
        return features_of(self.data.real(), REAL, self.features)

    def _subject(self, model: TextToImage, generate: Generate, *, batch_size: int) -> Subject:
        return Subject(model, generate, self.data, self.networks, folder=None, story={}, batch_size=batch_size)
