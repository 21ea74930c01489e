"""`init_from=FOLDER`: a run whose UNet starts as one that diffusers wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_art.config import build, class_of
from diffusion_art.errors import UserError
from diffusion_art.models.text_encoder import OpenClipScratch
from diffusion_art.models.unet import UNet
from diffusion_art.models.unet_from_diffusers import tower_arguments, unet_arguments


def started_from(model: dict[str, Any], folder: Path, *, typed: Sequence[str]) -> dict[str, Any]:
    """The config of the model with its UNet in the shape of the folder's; and so its text tower, where both have one
    that was trained along. `typed` are the keys of the command line.

    Raises:
        UserError: another network than a UNet, a shape that ours cannot have, or a key of it that was typed.
    """
    if not issubclass(kind := class_of(model["backbone"]), UNet):
        raise UserError(
            f"init_from={folder} is a UNet, and model.backbone a {kind.__name__}: model/backbone=unet_tiny."
        )
    codec = build(model["codec"])
    shape = {"backbone": unet_arguments(folder, sample_size=model["image_size_px"] // codec.factor)}
    tower = tower_arguments(folder) if issubclass(class_of(model["text_encoder"]), OpenClipScratch) else None
    if tower is not None:
        shape["text_encoder"] = tower
    for part, arguments in shape.items():
        for name, value in arguments.items():
            key, asked = f"model.{part}.{name}", model[part].get(name)
            if key in typed and asked != value:
                raise UserError(f"init_from={folder} has {key}={value}, and {key}={asked} was asked for: drop one.")
    return {**model, **{part: {**model[part], **arguments} for part, arguments in shape.items()}}
