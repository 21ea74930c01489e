"""One file of a checkpoint that several processes wrote: `python -m diffusion_art.consolidate run=logs/wikiart/first`.

All commands read such a folder as it is. A file is easier to copy, and is resumed by `trainer=ddp` or one process just
as well.
"""

from __future__ import annotations

from diffusion_art.extras import check_extra

check_extra("paint")

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig

from diffusion_art.checkpoints import find_checkpoint, read_checkpoint
from diffusion_art.cli import command
from diffusion_art.config import plain
from diffusion_art.errors import UserError
from diffusion_art.shared_checkpoint import written_file

log = logging.getLogger(__name__)


def consolidate(config: DictConfig) -> Path:
    """Returns the file, which takes the place of the folder unless `out` names another."""
    asked = plain(config)
    folder = find_checkpoint(Path(asked["run"]), which=asked["checkpoint"]).resolve()
    if folder.is_file():
        raise UserError(f"{folder} is one file already.")
    out = Path(asked["out"]).expanduser() if asked["out"] else folder
    if out.resolve() == folder:
        out = folder
    elif out.is_dir():
        raise UserError(f"out={out} is a folder: give the name of a file.")
    with written_file(out) as partial, partial.open("wb") as file:
        torch.save(read_checkpoint(folder), file)
    log.info("%s: one file of %.3g GB", out, out.stat().st_size / 1e9)
    return out


main = command("consolidate")(consolidate)

if __name__ == "__main__":
    main()
