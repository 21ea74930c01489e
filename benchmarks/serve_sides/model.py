"""The one model that all sides serve, painted with in the one way."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch

from diffusion_art.checkpoints import load_text_to_image
from diffusion_art.diffusion.samplers import Sampler
from diffusion_art.images import to_pil
from diffusion_art.models.text_to_image import TextToImage

GUIDANCE_SCALE = 3.0
SAMPLER = "dpmpp_2m"
EIR_SAMPLER = Sampler("ddim", num_steps=200, eta=0.2)  # the tutorial's, in float32


def load(path: str) -> TextToImage:
    return load_text_to_image(path)


def paint(
    model: TextToImage, prompts: Sequence[str], seeds: Sequence[int], *, num_steps: int, bf16: bool = True
) -> list[str]:
    """A base64 PNG for each prompt, in batches of at most 16 as `generate` makes them."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        images = model.generate(
            prompts, seeds=seeds, sampler=Sampler(SAMPLER, num_steps=num_steps), guidance_scale=GUIDANCE_SCALE
        )
    return [png_base64(image) for image in images]


def png_base64(image: torch.Tensor) -> str:
    file = io.BytesIO()
    to_pil(image).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
