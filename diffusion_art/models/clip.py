"""A whole open_clip model, frozen: pictures and captions -> vectors in one space."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_art.models.open_clip_weights import called, load_clip, local_dir_of_run

BATCH = 64  # captions at a time


class Clip(nn.Module):
    """Both towers of an open_clip model; every vector has length 1.

    `model` is an open_clip name with a tag or file as `pretrained`, or `hf-hub:ORG/REPO` or `local-dir:FOLDER`.

    Paper: Radford et al. 2021, https://arxiv.org/abs/2103.00020

    Raises:
        UserError: an unknown model or tag, or weights that cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, model: str = "ViT-B-32", pretrained: str | None = "laion2b_s34b_b79k"):
        super().__init__()
        self.name = called(model, pretrained)
        self.net: Any = load_clip(model, pretrained)
        self._tokenize = open_clip.get_tokenizer(local_dir_of_run(model), context_length=self.net.context_length)
        settings, size = self.net.visual.preprocess_cfg, self.net.visual.image_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.interpolation = "bilinear" if settings["interpolation"] == "bilinear" else "bicubic"
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(settings[name])[:, None, None])
        self.dim = self.captions([""]).shape[1]

    @cached_property
    def identity(self) -> str:
        """A digest of the weights of the image tower."""
        digest = hashlib.sha256()
        for name, value in sorted(self.net.visual.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Of pictures in [-1, 1], scaled to the size the tower was trained on."""
        scaled = F.interpolate(images, size=self.size, mode=self.interpolation, antialias=True).clamp(-1, 1)
        return self.net.encode_image(((scaled + 1) / 2 - self.mean) / self.std, normalize=True).float()

    @torch.no_grad()
    def captions(self, captions: Sequence[str]) -> Float[Tensor, "b d"]:
        """Of captions, each cut to what the tower reads."""
        device = self.mean.device
        starts = range(0, len(captions), BATCH)
        ids = (self._tokenize(list(captions[start : start + BATCH])).to(device) for start in starts)
        return torch.cat([self.net.encode_text(part, normalize=True).float() for part in ids])
