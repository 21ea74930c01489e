"""The module of a run from a checkpoint of it, to look at or to train further in a loop of one's own."""

from __future__ import annotations

from typing import Any

from diffusion_art.checkpoints import find_checkpoint, read_checkpoint
from diffusion_art.errors import UserError
from diffusion_art.record import Record
from diffusion_art.training.build import build_module
from diffusion_art.training.module import DiffusionModule


def load_module(
    checkpoint_path: Any,
    map_location: Any = "cpu",
    *args: Any,
    strict: bool | None = True,
    weights_only: bool | None = True,
    **settings: Any,
) -> DiffusionModule:
    """The module of a run as a checkpoint of it left it, with its averages; the config in it says what to build.

    Raises:
        UserError: no checkpoint of a run there, one of an earlier version, or `settings`, which the config has.
    """
    of_lightning = {"strict": strict, "weights_only": weights_only}  # ours are true in any case
    given = [*map(str, args), *settings, *(name for name, value in of_lightning.items() if value is False)]
    if given:
        raise UserError(f"{', '.join(given)}: a module is built as the config in {checkpoint_path} has it.")
    path = find_checkpoint(checkpoint_path)
    checkpoint = read_checkpoint(path)
    if not checkpoint["state_dict"]:
        raise UserError(f"{path} holds averaged weights to paint with, and no module: load_text_to_image(path).")
    try:
        module = build_module(Record.of(checkpoint).config, checkpoint=path)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} is of an earlier version, whose settings this one cannot train with ({error}); "
            "load_text_to_image(path) gives the model."
        ) from error
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    return module.to(map_location)
