"""The networks that metrics look through, each loaded once; and the features of real pictures, kept between runs."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffusion_art.evaluation.features import Features, load_features
from diffusion_art.evaluation.progress import progressing
from diffusion_art.evaluation.reference import BATCH, Pictures
from diffusion_art.files import cache_folder, save_tensors

if TYPE_CHECKING:
    from diffusion_art.models.clip import Clip

log = logging.getLogger(__name__)


class Networks:
    """Feature networks and CLIPs on one device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._features: dict[str, Features] = {}
        self._clips: dict[tuple[str, str | None], Clip] = {}

    def features(self, name: str) -> Features:
        """UserError where there is no such network, or its weights are not on this machine."""
        if name not in self._features:
            self._features[name] = load_features(name, device=self.device)
        return self._features[name]

    def clip(self, model: str, pretrained: str | None) -> Clip:
        """UserError where the weights of this open_clip model cannot be had."""
        from diffusion_art.models.clip import Clip  # open_clip takes three seconds to import

        if (model, pretrained) not in self._clips:
            self._clips[model, pretrained] = Clip(model=model, pretrained=pretrained).to(self.device)
        return self._clips[model, pretrained]

    def clip_features(self, model: str, pretrained: str | None) -> Features:
        """The vectors of a CLIP's pictures, each of length 1."""
        clip = self.clip(model, pretrained)
        return Features(clip.name, clip.dim, clip.images, self.device, identity=clip.identity)


def features_of(pictures: Pictures, count: int, features: Features) -> Float[Tensor, "n d"]:
    """Features of the first `count` pictures, from the user's cache folder where they were taken before.

    The file's name is a digest of the pictures, their number, the network with its weights, and the kind of device.
    """
    path = cache_file(pictures, count, features)
    try:
        return load_file(path)["features"].clone()  # aligned as new memory is: a product's last bit depends on it
    except (SafetensorError, OSError, KeyError):
        parts = progressing(pictures.parts(count), f"{features.name} of {count:,} real pictures", of=-(-count // BATCH))
        seen = torch.cat([features(part.images) for part in parts])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, {"features": seen}, metadata={"pictures": pictures.digest, "network": features.identity})
    except OSError as error:
        log.warning("the features of the real pictures are not kept for next time: %s", error)
    return seen


def cache_file(pictures: Pictures, count: int, features: Features) -> Path:
    """Where these features are kept."""
    told = [1, pictures.digest, count, features.name, features.identity, features.device.type]
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
    return cache_folder("features") / f"{name}.safetensors"
